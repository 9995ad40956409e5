# Short names for the usual steps; CMake does the work (docs/BUILDING.md).
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
PREFIX ?= /usr/local
MAKEFLAGS += --no-print-directory
configure = cmake --preset $(1) --log-level=NOTICE
build = cmake --build --preset $(1) -j $(JOBS)

.PHONY: release sample cuda test test-release test-asan-ubsan tidy fuzz install format clean

release:
	$(call configure,release)
	$(call build,release)

# A grid of pictures from the model in assets/.
sample:
	scripts/setup.sh build
	$(call configure,release)
	$(call build,release) --target programs
	mkdir -p out
	build/release/ditmoe-sample -m assets/default/model.pth -n 60 --label-sampling list \
	  --cfg-scale 2 --force -o out/ --grid out/grid.png --grid-cols 10

# The backend for NVIDIA GPUs, beside the programs; nvcc on the PATH or in CUDACXX.
cuda:
	$(call configure,release) -DDITMOE_CUDA=ON
	$(call build,release) --target programs ditmoe_cuda

# Every part runs, even after one has failed.
test:
	scripts/setup.sh build test
	$(MAKE) -k test-release test-asan-ubsan tidy

test-release test-asan-ubsan: test-%:
	$(call configure,$*)
	$(call build,$*)
	ctest --preset $*

tidy:
	$(call configure,release)
	tests/tools/check_tidy build/release

# Each target for FUZZ_SECONDS, from its corpus and the fixtures; what it finds stays in build/fuzz.
fuzz:
	scripts/setup.sh build fuzz
	$(call configure,fuzz)
	$(call build,fuzz)
	tests/tools/run_fuzz build/fuzz $(FUZZ_SECONDS)

install:
	cmake --install build/release --prefix $(PREFIX)

format:
	find include base io trace backend params router dit sampler vae eval api cli plot bench examples tests \
	  \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) -print0 | \
	  xargs -0 clang-format -i

clean:
	rm -rf build out
