"""Where do pictures go, and in which colours? One place that opens a figure without a display and writes it as PNG."""

from contextlib import contextmanager
from pathlib import Path


@contextmanager
def figure(path, rows, columns, size):
    """Yield (figure, axes) of `rows` x `columns` panels, `size` in inches; written to `path` on leaving."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    try:
        yield fig, axes
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, dpi=120)
    finally:
        plt.close(fig)


def colours(count):
    """Colours of `count` lines, a list, grey not among them: apart in hue up to 18, from dark to light beyond."""
    from matplotlib import colormaps

    pairs = colormaps["tab20"].colors  # each strong colour is followed by its light one
    hues = [colour for colour in [*pairs[::2], *pairs[1::2]] if len(set(colour)) > 1]
    if count <= len(hues):
        return hues[:count]
    return [colormaps["viridis"](0.95 * i / (count - 1)) for i in range(count)]
