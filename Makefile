# The newcomer's commands. `make` alone lists them.
SHELL := /bin/bash

BUILT := $(or $(CARGO_TARGET_DIR),target)/release
CARGO := cargo
# --workspace everywhere: cargo then chooses the same features each time, and nothing is built twice.
BUILD_FLAGS := --release --workspace
PREFIX ?= /usr/local
INSTALL = PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" BUILT="$(BUILT)" CPUS="$(CPUS)" scripts/install.sh

.DEFAULT_GOAL := help
.PHONY: help setup assets-robomimic build demo test test-interop bench-trainer bench-env bench-render check-cuda install install-files install-units uninstall fmt-check clippy clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: CARGO_TARGET_DIR, TENON_DEPS (folder of the fetched wheels), TENON_ROBOMIMIC (folder of the Robomimic scenes), QUICK=1, DEMO_FLAGS, TEST_FLAGS, BENCH_FLAGS, PREFIX, DESTDIR, CPUS"

setup: ## check tools, install missing packages, fetch MuJoCo, ONNX Runtime and the Gym models; a second run does nothing
	@scripts/setup.sh

assets-robomimic: ## fetch the scenes of Lift, Can, Square and Transport (robosuite's wheel, 210 MB); a second run does nothing
	@scripts/assets-robomimic.sh

build: setup ## build every program
	$(CARGO) build $(BUILD_FLAGS)

demo: build ## from demonstrations to a moving (simulated) arm and a report; QUICK=1: the same steps with fewer iterations
	"$(BUILT)/tenon" demo $(if $(filter-out 0,$(QUICK)),--quick) $(DEMO_FLAGS)

# The programs are built first because some tests start them.
test: ## build and run all tests; TEST_FLAGS='-- golden' narrows them, ROBOMIMIC=0 goes without the Robomimic scenes
	@scripts/setup.sh tests
	@$(if $(filter 0,$(ROBOMIMIC)),true,scripts/assets-robomimic.sh)
	$(CARGO) build $(BUILD_FLAGS)
	$(CARGO) test $(BUILD_FLAGS) $(TEST_FLAGS)

# Only what is missing is fetched; BENCH_PIP_FLAGS goes to pip (see trainer/peer/setup.sh).
BENCH_VENV ?= .deps/venv-bench
bench-trainer: build ## training speed beside PyTorch, which is fetched from PyPI (7 GB); BENCH_FLAGS='--quick --json'
	@trainer/peer/setup.sh "$(BENCH_VENV)"
	@"$(BUILT)/tenon-train" bench $(BENCH_FLAGS) --peer "$(BENCH_VENV)/bin/python" trainer/peer/peer.py

ENV_VENV ?= .deps/venv-environments
bench-env: build ## environment steps beside mujoco.rollout, gymnasium and robosuite, which are fetched (1 GB); BENCH_FLAGS='--quick --json'
	@trainer/peer/setup.sh "$(ENV_VENV)" trainer/peer/requirements-environments.txt
	@"$(BUILT)/tenon-train" bench env $(BENCH_FLAGS) --peer "$(ENV_VENV)/bin/python" trainer/peer/environments.py

# Only what is missing is fetched (100 MB). The scene is one of `make assets-robomimic`, or RENDER_FLAGS names another.
RENDER_VENV ?= .deps/venv-render
RENDER_FLAGS ?= --model .deps/robomimic/lift.xml --camera robot0_eye_in_hand --group 1 --physics-steps 25
bench-render: build ## pictures of a scene beside mujoco.Renderer in Python; RENDER_FLAGS='--model FILE --camera NAME'
	@"$(RENDER_VENV)/bin/python" -c 'import mujoco' 2>/dev/null || (python3 -m venv "$(RENDER_VENV)" && \
		"$(RENDER_VENV)/bin/python" -m pip install --quiet --no-input "mujoco==3.3.7" "numpy<2")
	@"$(BUILT)/tenon-train" bench-render $(RENDER_FLAGS) --peer "$(RENDER_VENV)/bin/python" trainer/peer/render.py

# Builds the CUDA back end and compiles its kernels with NVRTC (90 MB from PyPI); wants no card. TENON_CUDA=cuda also runs the
# golden cases on the card.
CUDA_NVRTC := .deps/nvrtc
check-cuda: setup ## type-check the CUDA back end and compile its kernels, without a card
	@test -e $(CUDA_NVRTC)/nvidia || (mkdir -p $(CUDA_NVRTC) && \
		python3 -m pip download --quiet --no-deps --dest $(CUDA_NVRTC) nvidia-cuda-nvrtc-cu12==12.8.93 && \
		python3 -m zipfile -e $(CUDA_NVRTC)/*.whl $(CUDA_NVRTC))
	TENON_NVRTC=1 LD_LIBRARY_PATH="$(CURDIR)/$(CUDA_NVRTC)/nvidia/cuda_nvrtc/lib:$$LD_LIBRARY_PATH" \
		$(CARGO) test $(BUILD_FLAGS) --features tenon-train/cuda --test cuda --test golden -- --nocapture

# Heavy peers never run in `make test`. TENON_TORCH_VENV=DIR, TENON_MUJOCO_VENV=DIR and TENON_DATA_VENV=DIR keep them between runs.
test-interop: build ## beside pupil-apriltags, MuJoCo's Python, PyTorch, LeRobot and robomimic; they are fetched (6 GB) and thrown away
	@TENON="$(BUILT)/tenon" QUICK="$(QUICK)" tests/interop/tags.sh
	@CARGO="$(CARGO)" BUILD_FLAGS="$(BUILD_FLAGS)" tests/interop/pictures.sh
	@CARGO="$(CARGO)" BUILD_FLAGS="$(BUILD_FLAGS)" tests/interop/run.sh
	@CARGO="$(CARGO)" BUILD_FLAGS="$(BUILD_FLAGS)" tests/interop/torchscript.sh
	@TENON_TRAIN="$(BUILT)/tenon-train" tests/interop/data.sh

install: build ## build, then put programs, libraries, configurations and services under PREFIX
	@$(INSTALL) install

install-files: ## the same without building (for sudo and packages)
	@$(INSTALL) install

install-units: ## only the services
	@$(INSTALL) units

uninstall: ## take away what install put under PREFIX
	@$(INSTALL) uninstall

fmt-check: ## is the code formatted?
	$(CARGO) fmt --all --check

clippy: setup ## lints, warnings are errors
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

clean: ## remove what was built; .deps and the wheels stay
	$(CARGO) clean
