"""Machines that nobody has at hand, as the doctor's facts: `python tests/faked_machines.py [NAME]` prints what the doctor says of each.

Their rates are made up, in the proportions that such hardware is known for.
"""

import sys
from dataclasses import replace

from lab_utils.doctor import versions
from lab_utils.doctor.facts import Compute, Facts, Folder, FourBits, Gpu, Hub, Memory, Packages, Speed, System, Token, Unknown

TESTED = {
    one.name: next(iter(one.specifier)).version for one in versions.requirements()
}  # lower bounds; the model's package has one version
TESTED |= {name: version for name, version in versions.tested().items() if name in TESTED}
T4, P100, A100 = Gpu("Tesla T4", 15.8, (7, 5)), Gpu("Tesla P100-PCIE-16GB", 17.1, (6, 0)), Gpu("NVIDIA A100-SXM4-40GB", 42.4, (8, 0))
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
CUDA_BUILD, CPU_BUILD = "2.11.0+cu128", "2.13.0+cpu"


def _folders(free_gb=80.0, **faults):
    names = {"runs": "runs", "cache": "the lab's cache", "downloads": "the download cache"}
    return tuple(Folder(what, free_gb, faults.get(key)) for key, what in names.items())


def _cpu(cores=2, bf16=False):
    return Compute(cores, (), False, CPU_BUILD, None, None, None, bf16, None)


def _gpu(one, count=1, free_gb=None):
    return Compute(2, (one,) * count, False, CUDA_BUILD, one, free_gb or one.memory_gb - 0.5, None, False, True)


THIS_KIND = Facts(
    system=System("local", "Linux", "x86_64", False, "3.12.4"),
    packages=Packages(TESTED | {"torch": CPU_BUILD}, {}, False),
    compute=_cpu(bf16=True),
    speed=Speed({"float32": 120e9, "bfloat16": 380e9}),
    four_bits=FourBits(None),
    memory=Memory(25.3, 25.3, 23.0, "machine"),
    folders=_folders(),
    hub=Hub("huggingface.co", False, None),
    token=Token(None),
)
EMULATING = Speed({"float32": 120e9, "bfloat16": 21e9})
OLD_CPU = replace(THIS_KIND, compute=_cpu(4), speed=EMULATING)
COLAB = replace(
    THIS_KIND,
    system=System("colab", "Linux", "x86_64", False, "3.12.11"),
    packages=Packages(TESTED | {"torch": CUDA_BUILD, "numpy": "2.1.3"}, {}, False),
    memory=Memory(13.6, 13.6, 12.1, "machine"),
    folders=_folders(70.0),
)
KAGGLE = replace(COLAB, system=replace(COLAB.system, where="kaggle"), memory=Memory(33.6, 33.6, 31.5, "machine"))
T4_RATES = Speed({"float32": 4.0e12, "bfloat16": 1.9e12, "float16": 24e12})

MACHINES = {
    "Kaggle that looks like Colab, two T4": replace(KAGGLE, compute=_gpu(T4, 2), speed=T4_RATES, token=Token("the variable HF_TOKEN")),
    "Kaggle, P100": replace(
        KAGGLE, compute=replace(_cpu(4), gpus=(P100,), torch=CUDA_BUILD, fault=NO_KERNEL, claims_bf16=True), speed=EMULATING
    ),
    "Kaggle, internet off": replace(
        KAGGLE, compute=_gpu(T4), speed=T4_RATES, hub=Hub("huggingface.co", False, "Temporary failure in name resolution")
    ),
    "Colab, T4 that claims bf16": replace(COLAB, compute=_gpu(T4), speed=T4_RATES),
    "Colab, A100": replace(COLAB, compute=_gpu(A100), speed=Speed({"float32": 18e12, "bfloat16": 230e12, "float16": 230e12})),
    "CPU with AVX512-BF16": THIS_KIND,
    "CPU without AVX-512": OLD_CPU,
    "CPU that names bfloat16 and is slow at it": replace(THIS_KIND, speed=EMULATING),
    "8 GB laptop": replace(OLD_CPU, memory=Memory(8.2, 8.2, 3.1, "machine"), folders=_folders(31.0)),
    "4 GB container": replace(OLD_CPU, memory=Memory(67.0, 4.0, 3.2, "container or job")),
    "1 GB container": replace(OLD_CPU, memory=Memory(67.0, 1.0, 0.3, "container or job")),
    "No network": replace(OLD_CPU, hub=Hub("huggingface.co", False, "no answer in 3 seconds")),
    "Apple M2": replace(
        OLD_CPU,
        system=System("local", "Darwin", "arm64", False, "3.12.4"),
        compute=replace(_cpu(8), torch="2.13.0"),
        speed=Speed({"float32": 900e9, "bfloat16": 1400e9}),
        memory=Memory(17.2, 17.2, 7.5, "machine"),
    ),
    "Windows, with its paths": replace(
        OLD_CPU,
        system=System("local", "Windows", "AMD64", False, "3.13.1"),
        four_bits=FourBits(r"Could not find module 'C:\Users\Ann Lee\lab\.venv\Lib\libbitsandbytes_cpu.dll'"),
        folders=_folders(cache=r"Access is denied: 'C:\Users\Ann Lee\.cache\summarization-lab'"),
    ),
    "Windows with a GPU and torch for CPUs": replace(
        OLD_CPU,
        system=System("local", "Windows", "AMD64", False, "3.13.1"),
        compute=replace(_cpu(8), gpus=(Gpu("GeForce RTX 4070", 12.9, (8, 9)),)),
    ),
    "WSL": replace(OLD_CPU, system=System("local", "Linux", "x86_64", True, "3.12.3")),
    "Broken install": replace(
        OLD_CPU,
        system=replace(OLD_CPU.system, python="3.10.12"),
        packages=Packages(
            {name: version for name, version in TESTED.items() if name != "peft"} | {"transformers": "5.2.0", "datasets": "99.1"},
            {"bitsandbytes": "libcudart.so.13: cannot open shared object file"},
            True,
        ),
        compute=Unknown("No module named 'peft'"),
        speed=Unknown("No module named 'peft'"),
    ),
    "Full disk": replace(OLD_CPU, folders=_folders(0.2, runs="No space left on device")),
    "Read-only folder": replace(OLD_CPU, folders=_folders(runs="Read-only file system")),
    "Session whose GPU another program fills": replace(COLAB, compute=_gpu(T4, free_gb=1.2), speed=T4_RATES),
}  # fmt: skip

if __name__ == "__main__":
    from lab_utils.doctor import reporting

    for name, facts in MACHINES.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            print(f"== {name}\n\n{reporting.text(facts)}\n")
