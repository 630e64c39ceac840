#!/usr/bin/env python3
"""The bench's PyTorch peer: a process that repeats a named bench on request, so that repetitions can alternate.

A request is one JSON object a line on standard input; all but "bench" may be left out:

    {"bench": "update_hopper", "threads": 1, "repetitions": 1, "rows": 50000, "environments": 50, "quick": false}

Its answer is one line on standard output, with the seconds on the clock and of the processor for each part of each
repetition:

    {"bench": "update_hopper", "peer": "pytorch 2.8.0", "repetitions": [{"update": {"wall": 6.9, "cpu": 6.8}}]}

or {"error": "…"}. A bench is built and warmed up at its first request with the same sizes (ask for 0 repetitions to do
only that). "quick" computes a share of an iteration and multiplies its times, see cases.py. The process ends with its
input.
"""

import argparse
import json
import os
import sys

import torch

from cases import CASES, Sizes, Stopwatch


def answer(request, built):
    name, threads = request["bench"], int(request.get("threads", 1))
    if name not in CASES:
        raise ValueError(f"no bench {name}: one of {', '.join(CASES)}")
    sizes = Sizes(**{key: request[key] for key in ("rows", "environments", "quick") if key in request})
    torch.set_num_threads(threads)
    key = (name, threads, sizes)
    if key not in built:
        # One case at a time: the data of one bench should not lie beside those of the next.
        built.clear()
        torch.manual_seed(0)
        case = CASES[name](sizes)
        case.warm_up(Stopwatch())
        built[key] = case
    watches = []
    for _ in range(int(request.get("repetitions", 1))):
        watches.append(Stopwatch())
        built[key].run(watches[-1])
    return {
        "bench": name,
        "peer": f"pytorch {torch.__version__.split('+')[0]}",
        "repetitions": [watch.parts for watch in watches],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    # Answers go to the pipe; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_interop_threads(1)
    built = {}
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line), built)
        except Exception as e:  # Every failure is the bench's to report, with its cause.
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
