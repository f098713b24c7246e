"""Every CUDA kernel compiles for Hopper, in every form that is used; no GPU is needed for that."""

import ctypes
import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = [ROOT / "recovery" / "kernels", ROOT / "sgc" / "kernels"]
KERNELS = sorted(path for folder in FOLDERS for path in folder.glob("*.cu"))
#: The macros of a file and the values they take; the first is the default.
VARIANTS = {
    "correlate_few.cu": [{"KB": kb} for kb in (3, 1, 2, 4, 5, 6)],
    "correlate_many.cu": [{}],
    "pursue.cu": [{"REGS": r} for r in (8, 1, 2, 4, 7, 12, 16, 32)] + [{"REGS": 1, "FEW": 1}],
    "low_rank.cu": [
        {"RANK": r, "DTYPE": t, "MOVED": moved, "LOT": lot}
        for r, t, moved, lot in ((32, 0, 0, 0), (16, 0, 1, 0), (64, 1, 1, 0), (128, 0, 1, 1))
    ],
    "sketch.cu": [{"REGS": r} for r in (8, 1, 2, 4, 16, 32)],
    "top_entries.cu": [
        *(
            {"S": s, "V": v, "DTYPE": t}
            for s, v in ((1, 1), (2, 4), (4, 8), (8, 16))
            for t in (0, 2)
        ),
        {"V": 32, "DTYPE": 1},
    ],
    "weights.cu": [{"DTYPE": t, "MODE": m} for t in (0, 1, 2) for m in (0, 1, 2)],
}
CASES = [(path, macros) for path in KERNELS for macros in VARIANTS[path.name]]


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


@pytest.mark.parametrize(
    ("path", "macros"), CASES, ids=[f"{p.name}-{'-'.join(map(str, m.values()))}" for p, m in CASES]
)
def test_kernel_compiles(path, macros):
    library = nvrtc()
    program = ctypes.c_void_p()
    source = path.read_bytes()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"k.cu", 0, None, None) == 0
    # As CuPy does it, which adds -ftz=true.
    options = [b"--gpu-architecture=sm_90", b"-std=c++17", b"-ftz=true"]
    options += [f"-I{path.parent}".encode()]
    options += [f"-D{name}={value}".encode() for name, value in macros.items()]
    flags = (ctypes.c_char_p * len(options))(*options)
    failed = library.nvrtcCompileProgram(program, len(options), flags)
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert failed == 0, log.value.decode()
    assert not log.value, log.value.decode()  # warnings are errors
    library.nvrtcDestroyProgram(ctypes.byref(program))


def test_every_kernel_is_compiled():
    assert {path.name for path in KERNELS} == set(VARIANTS)
