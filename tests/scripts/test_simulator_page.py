"""Does the simulator's page get the tables that `cero simulate --json` says?"""

import importlib.util
import json
from pathlib import Path

import pytest

from cero.cli.main import main as cero
from cero.research.simulation.methods import parse_method

ROOT = Path(__file__).parents[2]
SIZE = ["--prompts", "64", "--epochs", "2", "--batch", "32", "--seeds", "2", "--workers", "1"]


@pytest.fixture
def program():
    spec = importlib.util.spec_from_file_location("simulator_page", ROOT / "scripts/simulator_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated(folder, name, capsys, *words):
    """Leave what `cero simulate` prints as the script does; return it."""
    cero(["simulate", *SIZE, *words, "--json", "--out", str(folder / "picture.png")])
    text = capsys.readouterr().out
    (folder / f"table-{name}.json").write_text(text)
    return json.loads(text)


def test_tables_are_written_where_they_belong(program, tmp_path, capsys):
    methods = "uniform,even+posterior,cero/forgetting=0.7/response=2"
    result = simulated(tmp_path, "presets", capsys, "--methods", methods, "--presets", "latent,lab")
    simulated(tmp_path, "rules", capsys, "--methods", methods, "--presets", "latent,lab")
    page = tmp_path / "page.md"
    sections = [f"{first}\nold\n{last}" for first, last in map(program.place, program.TABLES)]
    page.write_text("before\n" + "\n".join(sections) + "\nafter\n")
    program.main([str(tmp_path), "--page", str(page)])
    assert "2 of 6 tables are written" in capsys.readouterr().out
    text = page.read_text()
    assert text.count("old") == 4 and text.startswith("before") and text.endswith("after\n")
    assert "| preset, rollouts a prompt | `uniform` | `even+posterior` | `cero` |" in text
    cell = result["cells"][0]["summary"]
    low, high = cell["cero/forgetting=0.7/response=2"]["gain"][1:]
    assert f"±{(high - low) / 2:.4f}" in text and f"| latent, 8 | {cell['uniform']['auc'][0]:.3f} (" in text
    assert f"| `uniform` | {cell['uniform']['auc'][0]:.3f} ±" in text


def test_a_folder_without_tables(program, tmp_path, capsys):
    with pytest.raises(SystemExit):
        program.main([str(tmp_path)])
    assert "holds none of table-budgets.json, table-check.json" in capsys.readouterr().err


def test_methods_of_the_page_are_known(program):
    """Each method of the tables can be copied into a command."""
    text = (ROOT / "docs/results/simulator.md").read_text()
    first, last = program.place("rules")
    table = text.split(first)[1].split(last)[0]
    names = [line.split("|")[1].strip().strip("`") for line in table.splitlines() if line.startswith("| `")]
    assert len(names) > 15 and all(parse_method(name) for name in names)
