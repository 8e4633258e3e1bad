"""How much capability is latent? Success probabilities of the warm start, measured by sampling."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path

import numpy as np

GROUP = 8  # rollouts per prompt of the uniform allocation that the summary speaks of


def sample_successes(
    model, tokenizer, rows: list[dict], samples: int, max_tokens: int, score, batch: int = 1024
):
    """Count the right answers among `samples` responses per row at temperature 1.

    Returns an int array of shape (len(rows),). `score(response, ground_truth)` says whether a response is
    right. Seed torch before the call.
    """
    import torch

    successes = np.zeros(len(rows), dtype=np.int64)
    prompts = [
        tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True, tokenize=False) for r in rows
    ]
    model.eval()
    jobs = np.repeat(np.arange(len(rows)), samples)
    for start in range(0, len(jobs), batch):
        job = jobs[start : start + batch]
        encoded = tokenizer(
            [prompts[i] for i in job], padding=True, add_special_tokens=False, return_tensors="pt"
        )
        with torch.no_grad():
            out = model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max_tokens,
            )
        responses = tokenizer.batch_decode(out[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, response in zip(job, responses, strict=True):
            successes[i] += bool(score(response, rows[i]["reward_model"]["ground_truth"]))
    return successes


def summarise(successes: np.ndarray, samples: int) -> dict:
    """Return key figures of the distribution of the success probability p over the prompts.

    Parameters
    ----------
    successes : int array (prompts,), each in 0..samples
    samples : at least GROUP

    A group of GROUP rollouts has no signal if they are all right or all wrong. The share of GROUP-subsets of
    the samples that are so estimates its probability without bias; putting the frequency into p^n + (1-p)^n
    would overstate it.
    """
    p = successes / samples
    subsets = comb(samples, GROUP)
    no_signal = np.mean([(comb(int(k), GROUP) + comb(samples - int(k), GROUP)) / subsets for k in successes])
    return {
        "prompts": len(successes),
        "samples_per_prompt": samples,
        "mean_accuracy": round(float(p.mean()), 4),
        f"groups_of_{GROUP}_without_signal": round(float(no_signal), 4),
        "prompts_with_p_in_.2_.8": round(float(np.mean((p >= 0.2) & (p <= 0.8))), 4),
        "prompts_never_right": round(float(np.mean(successes == 0)), 4),
        "prompts_always_right": round(float(np.mean(successes == samples)), 4),
        "histogram_of_successes": np.bincount(successes, minlength=samples + 1).tolist(),
    }


def by_family(rows: list[dict], successes: np.ndarray, samples: int) -> dict[str, float]:
    """Return the mean success frequency of each family's prompts."""
    names = np.array([row["extra_info"]["family"] for row in rows])
    return {
        name: round(float(np.mean(successes[names == name]) / samples), 4)
        for name in dict.fromkeys(names.tolist())
    }


def write_report(folder: Path, summary: dict, families: dict[str, dict[str, float]]) -> None:
    """Write latent.json and latent.png.

    The picture shows how p is spread over prompts, and each family's p beside the share shown in the warm
    start.

    families: name -> {"share": as shown in the warm start, "measured": mean success frequency}
    """
    (folder / "latent.json").write_text(
        json.dumps({**summary, "families": families}, indent=2) + "\n", encoding="utf-8"
    )

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    counts, samples = np.array(summary["histogram_of_successes"]), summary["samples_per_prompt"]
    left.bar(np.arange(samples + 1) / samples, counts, width=0.8 / samples, color="#4477aa")
    left.axvspan(0.2, 0.8, color="#ccbb44", alpha=0.2, lw=0, zorder=0, label="p in [0.2, 0.8]")
    left.set(
        xlabel=f"share of {samples} samples that are right", ylabel="train prompts", title="Before training"
    )
    left.legend(frameon=False)
    share, measured = (np.array([f[key] for f in families.values()]) for key in ("share", "measured"))
    right.plot([0, 1], [0, 1], color="0.7", lw=1)
    right.plot(share, measured, "o", color="#ee6677", ms=5)
    right.set(
        xlabel="share of the right procedure in the warm start", ylabel="measured success", title="Families"
    )
    figure.savefig(folder / "latent.png", dpi=120)
