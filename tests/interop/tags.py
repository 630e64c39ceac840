"""Compares what `tenon bench vision --pictures DIR` found in its pictures with what pupil-apriltags finds in them.

    tags.py DIR

Prints a table and fails if the C library in tenon with the same settings finds other ids or corners, if our whole search
misses a clearly visible tag that the peer finds or finds one that is not there, if its corners are less exact where both
found the tag, or if it takes more time. Times compared are medians of processor time, so that other work on the machine
does not decide.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from pupil_apriltags import Detector

REPEATS = 3
# A tag is the rendered one of its id if its corners are within this of the truth.
SAME_TAG_PX = 3.0
# Two builds of one library differ by rounding only.
SAME_CORNERS_PX = 0.01
# What anyone should find.
CLEAR_FRACTION, CLEAR_TILT_DEG = 0.99, 60.0


def read_pgm(path):
    kind, size, depth, pixels = path.read_bytes().split(b"\n", 3)
    assert kind == b"P5" and depth == b"255", f"{path} is no grey PGM of 8 bits"
    width, height = map(int, size.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width).copy()


def distances(corners, others):
    return np.hypot(*(np.asarray(corners) - np.asarray(others)).T)


def is_clear(entry):
    return entry["visible_fraction"] >= CLEAR_FRACTION and entry["tilt_deg"] <= CLEAR_TILT_DEG


class Search:
    """What one detector found in all pictures: corners by picture and id."""

    def __init__(self, name):
        self.name, self.found, self.wrong = name, {}, []

    def add(self, number, tags, truth):
        """`tags`: pairs of id and corners."""
        for tag, corners in tags:
            there = [entry for entry in truth if entry["id"] == tag]
            if there and distances(corners, there[0]["corners_px"]).max() <= SAME_TAG_PX:
                self.found[number, tag] = np.asarray(corners)
            else:
                self.wrong.append((number, tag))

    def rms_px(self, truth, keys):
        """Of a coordinate."""
        squares = [((self.found[key] - truth[key]) ** 2).mean() for key in keys]
        return float(np.mean(squares)) ** 0.5 if squares else float("nan")


def main(folder):
    ours = json.loads((folder / "ours.json").read_text())
    detector = Detector(
        families=ours["family"],
        nthreads=1,
        quad_decimate=1.0,
        quad_sigma=0.0,
        refine_edges=1,
        decode_sharpening=ours["decode_sharpening"],
    )
    peer = Search("pupil-apriltags")
    plain = Search("the C library in tenon")
    full = Search(f"tenon, margin {ours['min_decision_margin']:g}")
    truth, clear, wall_s, busy_s = {}, set(), [], []
    for number, picture in enumerate(ours["pictures"]):
        image = read_pgm(folder / f"{number:03}.pgm")
        for _ in range(REPEATS):
            wall, busy = time.perf_counter(), time.thread_time()
            tags = detector.detect(image)
            busy_s.append(time.thread_time() - busy)
            wall_s.append(time.perf_counter() - wall)
        entries = picture["truth"]
        truth |= {(number, entry["id"]): np.asarray(entry["corners_px"]) for entry in entries}
        clear |= {(number, entry["id"]) for entry in entries if is_clear(entry)}
        peer.add(number, [(tag.tag_id, tag.corners) for tag in tags if tag.hamming <= ours["max_hamming"]], entries)
        for search, found in ((full, picture["found"]), (plain, picture["library"])):
            search.add(number, [(tag["id"], tag["corners_px"]) for tag in found], entries)

    print(f"{len(ours['pictures'])} pictures, {len(truth)} tags, {len(clear)} of them clear (whole, tilted 60 degrees at most)")
    common = peer.found.keys() & plain.found.keys() & full.found.keys()
    print(f"corners: of the {len(common)} tags that all found, root mean square of a coordinate's error")
    print("search                        found  share of clear  wrong  corners px  p50 ms  processor p50 ms")
    times = {
        peer: [1e3 * statistics.median(values) for values in (wall_s, busy_s)],
        plain: [ours["library"]["p50_ms"], ours["library"]["busy_p50_ms"]],
        full: [ours["full"]["p50_ms"], ours["full"]["busy_p50_ms"]],
    }
    for search, (wall_ms, busy_ms) in times.items():
        share = len(clear & search.found.keys()) / max(len(clear), 1)
        print(
            f"{search.name:27} {len(search.found):7} {share:15.4f} {len(search.wrong):6}"
            f" {search.rms_px(truth, common):11.4f} {wall_ms:7.2f} {busy_ms:17.2f}"
        )
    ratio = times[peer][1] / times[full][1]
    print(f"the whole search of tenon is {ratio:.2f}x as fast as pupil-apriltags (processor time, one thread each)")
    below = sorted(peer.found.keys() - full.found.keys())
    print(f"found by pupil-apriltags and below the margin of tenon: {len(below)}")

    faults = []
    if peer.found.keys() != plain.found.keys() or sorted(peer.wrong) != sorted(plain.wrong):
        differ = sorted(peer.found.keys() ^ plain.found.keys())
        faults.append(f"the same settings give other ids (picture, id): {differ}, wrong ones {peer.wrong}, {plain.wrong}")
    both = peer.found.keys() & plain.found.keys()
    apart = max((distances(peer.found[key], plain.found[key]).max() for key in both), default=0.0)
    if apart > SAME_CORNERS_PX:
        faults.append(f"the same settings give corners {apart:.4f} px apart")
    if clear & set(below):
        faults.append(f"clear tags that pupil-apriltags found and we did not (picture, id): {sorted(clear & set(below))}")
    if full.wrong:
        faults.append(f"tags that are not there (picture, id): {full.wrong}")
    if full.rms_px(truth, common) > peer.rms_px(truth, common):
        faults.append("our corners are less exact")
    if ratio < 1.0:
        faults.append("our whole search takes more processor time")
    for fault in faults:
        print(f"tags: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
