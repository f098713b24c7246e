"""Every CUDA kernel compiles for Hopper; no GPU is needed for that."""

import ctypes
import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
KERNELS = sorted((ROOT / "recovery").glob("*.cu"))


def nvrtc():
    for package in ("nvidia.cu13", "nvidia.cuda_nvrtc"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in spec.submodule_search_locations or []:
            for library in sorted(pathlib.Path(folder).glob("lib/libnvrtc.so*")):
                return ctypes.CDLL(str(library))
    pytest.skip("nvidia-cuda-nvrtc is not installed")


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_kernel_compiles(path):
    library = nvrtc()
    program = ctypes.c_void_p()
    source = path.read_bytes()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"k.cu", 0, None, None) == 0
    flags = (ctypes.c_char_p * 2)(b"--gpu-architecture=sm_90", b"-std=c++17")
    failed = library.nvrtcCompileProgram(program, 2, flags)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert failed == 0, log.value.decode()
    library.nvrtcDestroyProgram(ctypes.byref(program))


def test_there_are_kernels():
    assert KERNELS
