import pytest
import tiny_cifar


@pytest.fixture
def small(monkeypatch):
    """Readers expect the sizes of tiny sets. Returns a function that makes them expect an archive's digest too."""
    tiny_cifar.expect_small(monkeypatch)
    return lambda name, path: tiny_cifar.expect_digest(monkeypatch, name, path)
