"""Writes aruco_codes.txt: the codes of the common ArUco dictionaries, as OpenCV's module `aruco` has them.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install opencv-python-headless
    /tmp/venv/bin/python aruco_codes.py > aruco_codes.txt

The smaller dictionaries (50, 100, 250 markers) are the beginning of the one with 1000; this is checked here.
"""

import cv2

aruco = cv2.aruco


def dictionary(cells, count):
    return aruco.getPredefinedDictionary(getattr(aruco, f"DICT_{cells}X{cells}_{count}"))


def code(whole, marker):
    bits = aruco.Dictionary.getBitsFromByteList(whole.bytesList[marker : marker + 1], whole.markerSize)
    return int("".join(str(int(bit)) for bit in bits.flatten()), 2)


print(f"# ArUco dictionaries of OpenCV {cv2.__version__} (Apache-2.0), written by aruco_codes.py.")
print("# One section a marker width; the n-th number is marker n: its cells row by row from the upper left,")
print("# the first one the highest bit, 1 for white, hexadecimal. The black border is not part of it.")
for cells in (4, 5, 6):
    whole = dictionary(cells, 1000)
    for count in (50, 100, 250):
        assert (dictionary(cells, count).bytesList == whole.bytesList[:count]).all()
    print(f"[{cells}x{cells}]")
    codes = [f"{code(whole, marker):x}" for marker in range(1000)]
    for start in range(0, 1000, 16):
        print(" ".join(codes[start : start + 16]))
