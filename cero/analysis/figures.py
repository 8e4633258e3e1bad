"""Where do pictures go, and in which colours? All are opened without a display and written as small PNGs."""

import warnings
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

DPI = 100  # dots an inch: a figure 9 inches wide fills a page of a browser
PALETTE = 64  # colours of a written picture: a chart needs its lines' and few shades between them


@contextmanager
def figure(path, rows=1, columns=1, size=(6, 4), mosaic=None, palette=PALETTE, **options):
    """Yield (figure, axes) of `rows` x `columns` panels, `size` in inches; write it to `path` on leaving.

    mosaic : None, or names of panels, a list for each row: `axes` is then a dict of name -> panel, and a name
    that is repeated spans several places. palette : most colours of the file. `options` go to matplotlib's
    `subplots` or `subplot_mosaic`.

    The file is a PNG with a palette, a third as large as one of true colours.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with warnings.catch_warnings(), matplotlib.rc_context({"text.parse_math": False}):  # a name may hold a $
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a name: an empty box stands for it
        yield from _figure(plt, path, rows, columns, size, mosaic, palette, options)


def _figure(plt, path, rows, columns, size, mosaic, palette, options):
    options |= {"figsize": size, "layout": "constrained"}
    if mosaic is None:
        fig, axes = plt.subplots(rows, columns, **options)
    else:
        fig, axes = plt.subplot_mosaic(mosaic, **options)
    try:
        yield fig, axes
        drawn = BytesIO()
        fig.savefig(drawn, format="png", dpi=DPI)
        write_small(drawn, path, palette)
    finally:
        plt.close(fig)


def write_small(source, path, palette=PALETTE):
    """Write the picture `source` (a file or its name) to `path` as a PNG of at most `palette` colours.

    They are the most frequent ones, exactly: those of lines and areas. Shades between them, which smooth the
    edges of lines, become the nearest of them.
    """
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(np.int64)
    found, at, counts = np.unique(pixels @ (65536, 256, 1), return_inverse=True, return_counts=True)
    found = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    kept = found[np.argsort(-counts, kind="stable")[:palette]]
    nearest = ((found[:, None] - kept) ** 2).sum(axis=2).argmin(axis=1)
    height, width, _ = pixels.shape
    small = Image.frombytes("P", (width, height), nearest[at].astype(np.uint8).tobytes())
    small.putpalette(kept.astype(np.uint8).tobytes())
    small.save(path, format="PNG", optimize=True)


def colours(count):
    """Return the colours of `count` lines, a list without grey.

    Up to 18 differ in hue; more go from dark to light.
    """
    from matplotlib import colormaps

    pairs = colormaps["tab20"].colors  # each strong colour is followed by its light one
    hues = [colour for colour in [*pairs[::2], *pairs[1::2]] if len(set(colour)) > 1]
    if count <= len(hues):
        return hues[:count]
    return [colormaps["viridis"](0.95 * i / (count - 1)) for i in range(count)]
