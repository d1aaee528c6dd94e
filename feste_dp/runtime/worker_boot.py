"""How a worker begins, called by child_boot.py: a file whose name tells a worker in a list of processes."""


def main() -> int:
    from feste_dp.runtime.worker import work  # takes half a second

    return work()
