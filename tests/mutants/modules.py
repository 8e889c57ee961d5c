"""What is mutated, and the tests that must notice, the quickest first; before them come a module's doctests."""

MODULES = {
    "trainer/input/data.py": ["tests/trainer/input/test_data.py"],
    "trainer/input/masking.py": ["tests/trainer/input/test_masking.py"],
    "trainer/engines/step.py": ["tests/trainer/engines/test_step.py"],
    "trainer/engines/optimizer.py": [
        "tests/trainer/engines/test_optimizer.py",
        "tests/trainer/engines/test_step.py::test_three_steps_are_those_of_pytorch",
    ],
    "trainer/run/checkpoint.py": ["tests/trainer/run/test_checkpoint.py"],
    "records/storage/folder_lock.py": ["tests/records/storage/test_folder_lock.py"],
    "records/storage/lease.py": ["tests/records/storage/test_folder_lock.py"],
    "records/storage/holder.py": ["tests/records/storage/test_folder_lock.py"],
    "pipelines/publish.py": ["tests/pipelines/test_publish.py"],
}
