"""Does every script and command refuse what it can't use, before any work, and say how it is used?"""

import ast
import os
import subprocess
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from cero.cli import arguments, main

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    path
    for folder in ("scripts", "examples", "cero")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "add_argument(" in path.read_text()
]
SHELL = [
    path
    for folder in ("scripts", "examples")
    for path in sorted((ROOT / folder).rglob("*.sh"))
    if path.parent.name != "lib"  # others source these
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_number_has_a_range(path):
    """A plain int or float takes -1 steps, nan seconds and 0 questions without a word."""
    for call in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"):
            continue
        option = getattr(call.args[0], "value", None)
        kinds = [keyword.value for keyword in call.keywords if keyword.arg == "type"]
        if any(keyword.arg == "choices" for keyword in call.keywords):
            continue
        plain = [kind.id for kind in kinds if isinstance(kind, ast.Name) and kind.id in ("int", "float")]
        assert not plain, f"{option} takes any {plain[0]}"


@pytest.mark.parametrize("path", SHELL, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_says_how_it_is_used_and_does_nothing_else(path, tmp_path):
    if path.name == "stage.sh":
        pytest.skip("it is sent to another machine by itself, and asked for nothing but its folder")
    for word in ("--help", "-h"):
        done = subprocess.run(["bash", path, word], cwd=tmp_path, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0 and not done.stderr
        assert f"bash {path.relative_to(ROOT)}" in done.stdout
        assert not any(line.startswith(("#", "set ")) for line in done.stdout.splitlines())
    assert not list(tmp_path.iterdir())


OF_PATHS = {  # what each script calls the folder that it writes to, or reads
    "scripts/quickstart.sh": ("OUT", "TASK"),
    "examples/fewshot/run.sh": ("OUT",),
    "examples/smollm2/run.sh": ("OUT",),
    "scripts/qwen2.5-math-1.5b.sh": ("OUT", "DATA"),
}


@pytest.mark.parametrize("path", ["runs/\u00fc", "a,b", "a=b", "a(b)", "a[1]", "~x", "a'b", "a#b", "a&b"])
@pytest.mark.parametrize("script, name", [(s, name) for s, names in OF_PATHS.items() for name in names])
def test_a_path_that_hydra_can_not_take(script, name, path, tmp_path):
    """Some of these end verl after the installation, and a comma makes a sweep; refused before either."""
    words = ["bash", ROOT / script, *(["grpo", "--dry-run"] if "qwen" in script else [])]
    done = subprocess.run(
        words, env=os.environ | {name: path}, cwd=tmp_path, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2 and f"{name}={path}: name a path of letters" in done.stderr


def test_options_are_written_in_full(capsys):
    """benchmark.sh looks for --dry-run by name."""
    for words in (["benchmark", "--dry"], ["study", "--pac", "x"]):
        with pytest.raises(SystemExit) as end:
            main.parser().parse_args(words)
        assert end.value.code == 2
    assert "unrecognized arguments: --dry" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--ablation", "--anchor", "equal"], "--anchor has no effect with --ablation"),
        (["--ablation", "--allocators", "uniform"], "--allocators has no effect with --ablation"),
        (["--allocators", "aero"], "--allocators aero: it decides within a step"),
    ],
)
def test_regret_refuses(words, reason, capsys):
    with pytest.raises(SystemExit) as end:
        main.main(["regret", *words])
    assert end.value.code == 2 and reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", [*SHELL, *sorted((ROOT / "scripts/lib").iterdir())], ids=lambda path: path.name
)
def test_lines_of_scripts_are_short(path):
    """Ruff looks at Python's only."""
    assert not [line for line in path.read_text().splitlines() if len(line) > 110]


@pytest.mark.parametrize(
    "words",
    [["check.sh", "--fxi"], ["install.sh", "now"], ["simulator_tables.sh", "--out"], ["gpu/stage.sh"]],
)
def test_a_script_refuses_words_that_it_does_not_know(words):
    done = subprocess.run(
        ["bash", ROOT / "scripts" / words[0], *words[1:]], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 2 and "bash " in done.stderr and not done.stdout


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        ("at_least_zero", {"0": 0, "12": 12}, ["-1", "1.5", "", "x", "٣", " 1"]),
        ("at_least_one", {"1": 1}, ["0", "-1", "1e3"]),
        ("numbers", {"0,1": [0, 1], "1,0,1": [1, 0]}, ["0,", "a", "-1", "1 2"]),
        ("counts", {"1,8": [1, 8], "8,8": [8]}, ["0", "1,-2"]),
        ("above_zero", {"1e-5": 1e-5, "inf": float("inf")}, ["0", "-1", "nan", "x", ""]),
        ("zero_or_more", {"0": 0.0, "1.5": 1.5, "inf": float("inf")}, ["-0.1", "nan", "x", ""]),
        ("share", {"0": 0.0, "0.25": 0.25, "1": 1.0}, ["-0.1", "1.1", "nan", "x"]),
    ],
)
def test_types(kind, good, bad):
    kind = getattr(arguments, kind)
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(ArgumentTypeError, match="is not a "):
            kind(text)


def test_a_list_of_known_words():
    kind = arguments.words_of(["a", "b"])
    assert kind("b,a") == kind("b,a,b") == ["b", "a"]  # once: seeds would count twice
    with pytest.raises(ArgumentTypeError, match="'c' is not known; there are a, b"):
        kind("a,c")


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    """train_and_report.sh makes its folder anew. A home folder must survive `OUT=~`."""
    (tmp_path / "thesis.tex").write_text("x")
    done = subprocess.run(
        ["bash", ROOT / "scripts/train_and_report.sh", tmp_path, "x=1"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "holds other things than a run's" in done.stderr
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_prompt_may_get_no_rollouts():
    """`allocator.n_min=0` is the default of the recipe, so the simulator takes it, too."""
    assert main.parser().parse_args(["simulate", "--n-min", "0"]).n_min == 0
