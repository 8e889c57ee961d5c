"""Distribution `remask`: packages `pipelines`, `records` and `trainer`.

The base install is what an Apache Beam worker needs and no more: a worker on Dataflow builds this distribution from
source, and TensorFlow there would cost it 600 MiB and five seconds a process for nothing.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

BASE = [
    "annotated-types>=0.6",
    "apache-beam[gcp]>=2.75,<3",
    "google-cloud-storage>=3.11",
    "google-crc32c>=1.6",
    "huggingface-hub>=1.18",  # before, its `hf` needs a click that it does not ask for
    "numpy>=1.26",
    "pydantic>=2.12",
    "setuptools>=68",  # builds the package that Dataflow's workers install
    "tokenizers>=0.22",
    "tqdm>=4.66.2",  # before, it warns on Python 3.12
]
TRAIN = [
    "keras>=3.10,<4",
    "ml-dtypes>=0.4",
    "packaging>=24",
    "safetensors>=0.5",
    "tensorboard>=2.19",
]
DEV = [
    "hypothesis>=6.100",
    "matplotlib>=3.10.8",
    "mypy>=1.13",
    "pandas>=2.2",
    "pytest>=9.0",
    "pytest-cov>=6.0",
    "pytest-randomly>=3.16",
    "pytest-timeout>=2.4",
    "pytest-xdist>=3.6",
    "ruff>=0.12",
    "trustme>=1.2",
    "types-tqdm>=4.66",
]

setup(
    name="remask",
    version="0.1.0",
    description="Masked language models on your own text: CSV to TFRecords to a HuggingFace checkpoint.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["pipelines*", "records*", "trainer*"]),
    package_data={"pipelines": ["py.typed"], "records": ["py.typed"], "trainer": ["py.typed"]},
    install_requires=BASE,
    extras_require={
        "train": ["tensorflow>=2.19,<2.22", *TRAIN],
        # TensorFlow for TPUs ends at 2.20, and an unpinned tensorflow-tpu resolves to a placeholder; with a libtpu
        # newer than 0.0.31 `import tensorflow` aborts.
        "tpu": ["tensorflow-tpu==2.19.1", "libtpu<=0.0.31", *TRAIN],
        "dev": DEV,
        # Changes the code for `make mutants`, which calls what mutmut does not promise to keep: so this one exactly.
        "mutants": ["mutmut==3.8.1"],
        # None is needed to run anything: the parity tests hold our model, and what it exports, against the first two,
        # and the step by way of JAX against the step.
        "parity": ["torch>=2.6", "transformers>=5.0,<6", "jax>=0.8"],
    },
)
