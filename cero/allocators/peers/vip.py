"""VIP: the allocation of least gradient variance under predicted success rates (arXiv 2602.01601)."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from cero.allocators.options import WithBeliefs
from cero.allocators.upfront import UpfrontAllocator
from cero.core.arrays import Floats, Ints
from cero.core.checks import check_choice, check_number
from cero.core.prompts import PromptIds, as_prompt_ids

Objective = Literal["dr_grpo", "rloo"]
Predictor = Literal["posterior", "gp"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
GAMMAS = {"dr_grpo": 4e-4, "rloo": 7e-4}
LEAST = {"dr_grpo": 3, "rloo": 2}  # from here on the objective is convex, rollout by rollout
BISECTIONS = 100
GP_MEAN, GP_LENGTH = -1.0, 0.4


def variance_factor(n: ArrayLike, objective: Objective) -> Floats:
    """Return f(n), such that p (1-p) f(n) is a prompt's gradient variance; published.

    f(n) = (n-1)/n^2 for dr_grpo, 1/(n-1) for rloo. n : array, >= 1 (dr_grpo) or >= 2 (rloo).
    """
    n = np.asarray(n, np.float64)
    return (n - 1.0) / n**2 if objective == "dr_grpo" else 1.0 / (n - 1.0)


def least_variance(
    p: Floats, budget: int, n_min: int, n_max: int, objective: Objective, gamma: float
) -> Floats:
    """Return n within bounds, of sum `budget`, that minimises sum_i p_i (1-p_i) f(n_i) + gamma n_i ln p_i.

    The objective is published. It is separable and convex, so one price decides: each prompt buys the
    rollouts whose gain p (1-p) (f(n) - f(n+1)) - gamma ln p is above it. The price is found by bisection,
    which is this project's. The result is exact over the integers, but for gains that tie at the price, which
    share what is left.

    Parameters
    ----------
    p : float array, shape (n,), in (0, 1)
    budget, n_min, n_max : int, feasible; n_min >= LEAST[objective]
    objective : one of OBJECTIVES; gamma : float >= 0

    Returns
    -------
    float array, shape (n,), summing to `budget`; whole numbers apart from ties.
    """
    # f(n) - f(n+1): positive, falling.
    drops = -np.diff(variance_factor(np.arange(n_min, n_max + 1), objective))
    spread, bonus = p * (1.0 - p), -gamma * np.log(p)

    def bought(price: float) -> Ints:
        return np.searchsorted(-drops, -(price - bonus) / spread, side="right")

    extra = budget - p.size * n_min
    if not p.size or not drops.size:
        return np.full(p.shape, float(n_min))
    low = 0.0  # everything is bought: all gains are positive
    high = float((spread * drops[0] + bonus).max()) * (1 + 1e-9)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        if bought(middle).sum() > extra:
            low = middle
        else:
            high = middle
    sure, open_ = bought(high), bought(low)
    tied = (open_ - sure).astype(np.float64)
    return n_min + sure + tied * (extra - sure.sum()) / max(tied.sum(), 1.0)


class Vip(WithBeliefs, UpfrontAllocator):
    """Minimise the summed gradient variance, less a bonus for hard prompts, under predicted success rates.

    Objective, constraints, bounds and the Gaussian process are published. This project chose the posterior
    mean as the default predictor, and the exact solution in place of greedy rounding. It also chose how noisy
    a prompt's observed rate is taken to be.

    Parameters
    ----------
    objective : "dr_grpo" or "rloo"
        Which estimator's variance: sum p (1-p) (n-1)/n^2 or sum p (1-p)/(n-1). Use the matching
        `algorithm.cero.advantage`.
    gamma : float >= 0 or None
        Weight of sum n ln p, which is lower the more rollouts hard prompts get. None: as published, 4e-4 for
        dr_grpo, 7e-4 for rloo.
    predictor : "posterior" or "gp"
        What predicts p. "posterior" is the posterior mean. "gp" is a Gaussian process on logit(p) over
        embeddings of the prompts (prior mean -1, RBF kernel of length 0.4), fitted on the last batch. It
        needs scikit-learn and `set_embeddings`. The beliefs then serve `success_mean` and the metrics only.
    n_min, n_max : int
        Published: 4, 32. n_min is at least 3 (dr_grpo) or 2 (rloo), below which the objective is not convex.
    **options : see `WithBeliefs` and `UpfrontAllocator`
    """

    name = "vip"
    state_options = ("predictor",)
    examples = ({"objective": "rloo"},)  # what n_min=2 allows

    def __init__(
        self,
        *,
        objective: Objective = "dr_grpo",
        gamma: float | None = None,
        predictor: Predictor = "posterior",
        n_min: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(n_min=n_min, **options)
        self.predictor = check_choice("predictor", predictor, get_args(Predictor))
        if predictor == "gp":
            self.table.add_columns({"batch_successes": (np.float64, 0.0), "batch_trials": (np.int32, 0)})
        self.objective = check_choice("objective", objective, OBJECTIVES)
        self.gamma = None if gamma is None else check_number("gamma", gamma, 0, 1e6)
        if self.n_min < LEAST[objective]:
            raise ValueError(
                f"n_min={self.n_min} must be at least {LEAST[objective]} with objective={objective}: below, "
                "the variance is not convex in the rollouts; raise n_min (published: 4)"
            )
        self._embedded = np.zeros(0, np.uint64)
        self._embeddings = np.zeros((0, 0))
        if predictor == "gp":
            _gaussian_process()  # fail now, not after the first step

    def set_embeddings(self, prompt_ids: PromptIds, embeddings: ArrayLike) -> None:
        """Give embeddings to prompts, for predictor=gp; a prompt given again takes the new one.

        Not part of the state: set them again after a resume.

        Parameters
        ----------
        prompt_ids : as for `allocate`, shape (n,)
        embeddings : float array, shape (n, d), finite, the same d at every call
            The kernel's length is the paper's: sensible for embeddings of length 1.

        Raises
        ------
        ValueError
            Naming what does not fit.
        """
        ids, embeddings = as_prompt_ids(prompt_ids), np.asarray(embeddings, np.float64)
        width = self._embeddings.shape[1]
        if not self._embedded.size:
            width = embeddings.shape[-1] if embeddings.ndim else 0
        if embeddings.ndim != 2 or embeddings.shape != (ids.size, width):
            raise ValueError(
                f"embeddings has shape {embeddings.shape}; give ({ids.size}, {width}), one row a prompt"
            )
        if not np.isfinite(embeddings).all():
            raise ValueError("embeddings holds values that are not finite; leave such prompts out")
        if not self._embedded.size:
            self._embeddings = np.zeros((0, width))
        # The last of equal ids stays: unique() keeps the first.
        every = np.concatenate([self._embedded, ids])[::-1]
        self._embedded, first = np.unique(every, return_index=True)
        self._embeddings = np.concatenate([self._embeddings, embeddings])[::-1][first]

    def allocate(self, prompt_ids: PromptIds, budget: int | None = None) -> Ints:
        ids = as_prompt_ids(prompt_ids)
        if self.predictor == "gp":
            missing = ~np.isin(ids, self._embedded)
            if missing.any():
                raise ValueError(
                    f"predictor=gp has no embeddings for {missing.sum()} of {ids.size} prompts; give them "
                    "with set_embeddings(prompt_ids, embeddings), or set predictor=posterior"
                )
        return super().allocate(ids, budget)

    def predicted(self, rows: Ints) -> Floats:
        """Return the predicted success rates of `rows`, in (0, 1), by the predictor that is set."""
        if self.predictor == "posterior":
            a, b = self.beliefs.parameters(rows)
            return a / (a + b)
        seen = np.flatnonzero(self.table["batch_trials"])
        logits = np.full(rows.shape, GP_MEAN)
        if seen.size and rows.size:
            trials = self.table["batch_trials"][seen]
            # Half a rollout each way keeps logits finite; a logit's noise is about 1 / (n p (1-p)).
            rates = (self.table["batch_successes"][seen] + 0.5) / (trials + 1.0)
            noise = 1.0 / (trials * rates * (1.0 - rates))
            process = _gaussian_process()(noise).fit(
                self._embedding(seen), np.log(rates / (1.0 - rates)) - GP_MEAN
            )
            logits = GP_MEAN + process.predict(self._embedding(rows))
        return 1.0 / (1.0 + np.exp(-np.clip(logits, -12.0, 12.0)))

    def _embedding(self, rows: Ints) -> Floats:
        return self._embeddings[np.searchsorted(self._embedded, self.table["id"][rows])]

    def _targets(self, rows: Ints, budget: int) -> Floats:
        gamma = GAMMAS[self.objective] if self.gamma is None else self.gamma
        p = np.clip(self.predicted(rows), 1e-6, 1.0 - 1e-6)
        return least_variance(p, budget, self.n_min, self.n_max, self.objective, gamma)

    def _observed(self, rows: Ints, successes: Floats, trials: Ints) -> None:
        if self.predictor == "gp" and rows.size:
            last = np.flatnonzero(self.table["batch_trials"])
            self.table["batch_trials"][last] = 0
            self.table["batch_successes"][last] = 0.0
            self.table["batch_trials"][rows] = trials
            self.table["batch_successes"][rows] = successes


def _gaussian_process() -> Callable[[Floats], Any]:
    """Return a function from noise variances, shape (n,), to a regressor with the published kernel."""
    try:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF
    except ImportError as error:
        raise ValueError(
            "predictor='gp' needs scikit-learn; pip install scikit-learn, or set predictor=posterior"
        ) from error
    return lambda noise: GaussianProcessRegressor(RBF(GP_LENGTH), alpha=noise, optimizer=None)
