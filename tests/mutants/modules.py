"""What is mutated, and the tests that must notice, the quickest first; before them come a module's doctests."""

MODULES = {
    "trainer/data.py": ["tests/trainer/test_data.py"],
    "trainer/masking.py": ["tests/trainer/test_masking.py"],
    "trainer/step.py": ["tests/trainer/test_step.py"],
    "trainer/optimizer.py": [
        "tests/trainer/test_optimizer.py",
        "tests/trainer/test_step.py::test_three_steps_are_those_of_pytorch",
    ],
    "trainer/checkpoint.py": ["tests/trainer/test_checkpoint.py"],
    "records/folder_lock.py": ["tests/records/test_folder_lock.py"],
    "records/lease.py": ["tests/records/test_folder_lock.py"],
    "records/holder.py": ["tests/records/test_folder_lock.py"],
    "pipelines/publish.py": ["tests/pipelines/test_publish.py"],
}
