"""Exports the four Robomimic scenes out of the robosuite 1.4.1 wheel: MJCF text at full precision, and its asset files.

    python3 assets_robomimic.py WHEEL FOLDER

Called by assets-robomimic.sh, which provides numpy. robosuite composes a scene as XML before MuJoCo sees it, and that
XML is what is written here. MuJoCo, numba, OpenCV and the like are only imported by it on the way and never called, so
they are replaced by empty modules: 700 MB less to fetch. The scenes have the sizes that the reference data were made
with, because robosuite draws two of them whenever it builds a scene; the simulation draws its own.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import tempfile
import types
import xml.etree.ElementTree as ET
import zipfile

# Half sizes of Lift's cube and of the head of Transport's hammer, metres.
CUBE_HALF_SIZES = [0.020360539377753537, 0.02003895048297525, 0.02092643705299669]
HAMMER_HEAD_HALF_SIZE = 0.01626061081376318

SCENES = {
    "lift": ("Lift", ["Panda"], {}),
    "can": ("PickPlaceCan", ["Panda"], {}),
    "square": ("NutAssemblySquare", ["Panda"], {}),
    "transport": ("TwoArmTransport", ["Panda", "Panda"], {"env_configuration": "single-arm-opposed"}),
}
# Imported by robosuite, not needed to compose a scene.
ABSENT = {"mujoco", "numba", "cv2", "PIL", "termcolor", "OpenGL", "scipy", "h5py", "pynput"}
ASSETS = "robosuite/models/assets/"


class Empty(types.ModuleType):
    """A module that has every name; what is called of it fails the export."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "colored":
            return lambda text, *args, **kwargs: text
        return type(name, (), {"__init__": self.refuse})

    @staticmethod
    def refuse(*args, **kwargs):
        raise RuntimeError("composing a scene called a module that was left out")


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = Empty(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


class Composed(Exception):
    """Ends the making of an environment as soon as its scene is composed."""


def import_robosuite(folder):
    sys.meta_path.insert(0, Finder())
    sys.path.insert(0, folder)
    os.environ["MUJOCO_GL"] = "disable"
    # Its settings file; without one it asks for one at each start.
    settings = types.ModuleType("robosuite.macros_private")
    settings.ENABLE_NUMBA = False
    settings.MUJOCO_GPU_RENDERING = False
    sys.modules["robosuite.macros_private"] = settings
    import robosuite

    return robosuite


def fix_sizes():
    """Puts the two drawn sizes in place, and makes every other draw an error."""
    import numpy
    from robosuite.environments.manipulation import lift

    box = lift.BoxObject

    def cube(*args, size_min, size_max, **kwargs):
        assert size_min == [0.020] * 3 and size_max == [0.022] * 3, (size_min, size_max)
        return box(*args, size=CUBE_HALF_SIZES, **kwargs)

    lift.BoxObject = cube

    def uniform(low, high):
        if low == high:
            return low
        # Nothing but the hammer's head may be drawn: from the handle's half size to 1.2 times that.
        assert abs(low - 0.015) < 1e-12 and abs(high - 0.018) < 1e-12, (low, high)
        return HAMMER_HEAD_HALF_SIZE

    def refuse(*args, **kwargs):
        raise RuntimeError("the scene draws something that is not known to be drawn")

    numpy.random.uniform = uniform
    for name in ("rand", "randn", "random", "choice", "randint", "normal"):
        setattr(numpy.random, name, refuse)


def compose(robosuite, name):
    """The scene of a task as an XML tree with absolute file names."""
    from robosuite.environments.base import MujocoEnv

    environment, robots, options = SCENES[name]
    composed = []

    def stop(self, xml_string=None):
        composed.append(self.model.get_xml())
        raise Composed

    MujocoEnv._initialize_sim = stop
    try:
        robosuite.make(
            environment, robots=robots, has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False,
            use_object_obs=True, hard_reset=False, control_freq=20, **options,
        )
    except Composed:
        return ET.fromstring(composed[0])
    raise RuntimeError(f"{environment} was made without composing a scene")


def main():
    wheel_path, target = sys.argv[1:]
    with zipfile.ZipFile(wheel_path) as wheel, tempfile.TemporaryDirectory(dir=os.path.dirname(target)) as folder:
        # The meshes and pictures stay in the wheel: only their names matter to robosuite.
        for member in wheel.namelist():
            if member.endswith((".py", ".json")) or (member.startswith(ASSETS) and member.endswith(".xml")):
                wheel.extract(member, folder)
        root = os.path.join(os.path.realpath(folder), ASSETS)
        robosuite = import_robosuite(os.path.realpath(folder))
        fix_sizes()
        files = set()
        for name in SCENES:
            scene = compose(robosuite, name)
            for compiler in scene.iter("compiler"):
                for attribute in ("meshdir", "texturedir"):
                    compiler.attrib.pop(attribute, None)
            for element in scene.iter():
                if "file" in element.attrib:
                    path = os.path.relpath(os.path.realpath(element.get("file")), root)
                    assert not path.startswith(".."), path
                    files.add(path)
                    element.set("file", "assets/" + path)
            ET.indent(scene)
            with open(os.path.join(target, name + ".xml"), "w", encoding="utf-8") as file:
                file.write(ET.tostring(scene, encoding="unicode") + "\n")
        for path in sorted(files):
            place = os.path.join(target, "assets", path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(wheel.read(ASSETS + path))
        licences = [member for member in wheel.namelist() if "dist-info/" in member and "LICEN" in member.upper()]
        for number, member in enumerate(licences):
            with open(os.path.join(target, "LICENSE" + (f".{number}" if number else "")), "wb") as file:
                file.write(wheel.read(member))
    print(f"{len(SCENES)} scenes, {len(files)} asset files")


main()
