"""What does the plugin add to `import verl`, in seconds and memory? Fresh processes with and without it.

python scripts/plugin_cost.py [--runs 7]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from cero.cli.arguments import at_least_one

CODE = """
import json, resource, time
start = time.perf_counter()
import verl
print(json.dumps([time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def measure(plugins):
    """Return (seconds, MiB) of `import verl` with VERL_USE_EXTERNAL_PLUGINS=`plugins`."""
    environment = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": plugins}
    result = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=at_least_one, default=7)
    runs = [[measure("none"), measure("cero")] for _ in range(parser.parse_args().runs)]
    for unit, which in (("s", 0), ("MiB", 1)):
        without, with_it = (statistics.median(run[i][which] for run in runs) for i in (0, 1))
        print(
            f"import verl: {without:.2f} {unit} without, {with_it:.2f} {unit} with, "
            f"{with_it - without:+.2f} {unit}"
        )


if __name__ == "__main__":
    main()
