import pytest

from trainer.input.memory import available


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:  4000 kB\n")
    return tmp_path


def contained(machine, limit, current, inactive_file):
    folder = machine / "sys/fs/cgroup"
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive_file}\n")


def test_of_a_machine_it_is_what_can_be_had_without_swapping(machine):
    assert available(machine) == 4000 * 1024


@pytest.mark.parametrize(
    ("limit", "current", "inactive_file", "expected"),
    [
        ("max", 10**9, 0, 4000 * 1024),  # no limit
        (10**9, 0, 0, 4000 * 1024),  # more than the machine has
        (3_000_000, 1_000_000, 400_000, 2_400_000),
        (3_000_000, 4_000_000, 0, 0),  # set lower than what is held already
    ],
)
def test_of_a_container_it_is_what_its_limit_leaves(machine, limit, current, inactive_file, expected):
    contained(machine, limit, current, inactive_file)
    assert available(machine) == expected


def test_a_system_that_does_not_say(tmp_path):
    assert available(tmp_path) is None
