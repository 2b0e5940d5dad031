"""Readers of CIFAR against tiny archives in each format, and everything that must be refused in one line."""

import io
import os
import pickle
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_cifar
import torch

from kdsim.config import ConfigError
from kdsim.data import DATA_SETS, ImageData, parquet, read_cifar
from kdsim.data.unpickle import unpickle

NAMES = ("cifar10", "cifar100")
KINDS = ("python", "binary")


def refusal(function, *args, **settings):
    """The one line with which a call is refused."""
    with pytest.raises(ConfigError) as caught:
        function(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_holds(data, tiny):
    for found, wanted in zip(
        (data.train_images, data.train_labels, data.test_images, data.test_labels), tiny, strict=True
    ):
        assert found.numpy().dtype == (np.uint8 if found.ndim == 4 else np.int64)
        assert (found.numpy() == wanted).all()


# What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_container_holds_the_same_images(tmp_path, small, name):
    tiny, digests, found = tiny_cifar.make(name), set(), set()
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        archive = tiny_cifar.write_archive(folder, name, kind)
        small(name, archive)
        packed = read_cifar(name, folder)
        tiny_cifar.write_folder(folder, name, kind)
        archive.unlink()
        for data in (packed, read_cifar(name, folder)):
            assert_holds(data, tiny)
            assert data.classes == DATA_SETS[name].classes
            digests.add(data.digest)
            found.add((data.source, data.source_sha256))
    tiny_cifar.write_parquet(tmp_path / name, name)
    data = read_cifar(name, tmp_path)
    assert_holds(data, tiny)
    assert digests == {data.digest}
    assert len(found | {(data.source, data.source_sha256)}) == 5


def test_class_names_and_published_digests():
    assert [len(DATA_SETS[name].classes) for name in NAMES] == [10, 100]
    assert list(DATA_SETS["cifar100"].classes) == sorted(DATA_SETS["cifar100"].classes)
    md5 = {layout.archive: layout.md5 for data_set in DATA_SETS.values() for layout in data_set.layouts}
    assert md5 == {
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
    }


@pytest.mark.parametrize("place", ["", "cifar10", "cifar10/plain_text"])
def test_parquet_is_found_in_the_folder_and_its_subfolders(tmp_path, small, place):
    tiny_cifar.write_parquet(tmp_path / place, "cifar10")
    assert_holds(read_cifar("cifar10", tmp_path), tiny_cifar.make("cifar10"))


def test_the_subfolder_of_its_name_comes_first(tmp_path, small):
    tiny_cifar.write_parquet(tmp_path, "cifar100")
    tiny_cifar.write_parquet(tmp_path / "cifar10", "cifar10")
    for name in NAMES:
        assert_holds(read_cifar(name, tmp_path), tiny_cifar.make(name))


def test_the_extracted_folder_itself_may_be_named(tmp_path, small):
    folder = tiny_cifar.write_folder(tmp_path, "cifar100", "python")
    assert_holds(read_cifar("cifar100", folder), tiny_cifar.make("cifar100"))


def test_shards_are_joined_in_order(tmp_path, small):
    tiny_cifar.write_parquet(tmp_path, "cifar10", shards=3)
    assert_holds(read_cifar("cifar10", tmp_path), tiny_cifar.make("cifar10"))


def test_jpeg_is_decoded_and_has_a_digest_of_its_own(tmp_path, small):
    tiny = tiny_cifar.make("cifar10")
    smooth = [np.full_like(images, 0) + np.arange(len(images), dtype=np.uint8)[:, None, None, None] * 4
              for images in (tiny.train_images, tiny.test_images)]  # fmt: skip
    tiny = tiny._replace(train_images=smooth[0], test_images=smooth[1])
    for form in ("PNG", "JPEG"):
        tiny_cifar.write_parquet(tmp_path / form, "cifar10", form, tiny=tiny)
    png, jpeg = (read_cifar("cifar10", tmp_path / form) for form in ("PNG", "JPEG"))
    difference = (png.train_images.int() - jpeg.train_images.int()).abs()
    assert difference.max() <= 2  # an image of one colour loses next to nothing
    assert (jpeg.train_labels == png.train_labels).all()
    assert (png.digest == jpeg.digest) == bool(torch.equal(png.train_images, jpeg.train_images))
    assert png.source_sha256 != jpeg.source_sha256


def test_official_containers_are_preferred_and_a_kind_can_be_asked_for(tmp_path, small):
    tiny_cifar.write_parquet(tmp_path, "cifar10")
    tiny_cifar.write_folder(tmp_path, "cifar10", "binary")
    assert read_cifar("cifar10", tmp_path).source == "CIFAR-10, official binary folder"
    assert read_cifar("cifar10", tmp_path, kind="parquet").source == "CIFAR-10, parquet files"
    assert "cifar-10-python.tar.gz" in refusal(read_cifar, "cifar10", tmp_path, kind="python")
    assert "python, binary, parquet" in refusal(read_cifar, "cifar10", tmp_path, kind="zip")


def test_digest_depends_on_images_and_labels(tmp_path, small):
    tiny_cifar.write_folder(tmp_path, "cifar10", "binary")
    data = read_cifar("cifar10", tmp_path)
    images, labels = data.train_images.clone(), data.test_labels.roll(1)
    images[3, 1, 5, 7] ^= 1
    assert len({data.digest, replace(data, train_images=images).digest, replace(data, test_labels=labels).digest}) == 3


# The cache ------------------------------------------------------------------------------------


def test_decoded_images_are_kept_and_used(tmp_path, small, monkeypatch):
    data_dir, cache = tmp_path / "data", tmp_path / "cache" / "below"
    tiny_cifar.write_parquet(data_dir, "cifar10")
    before = sorted(data_dir.iterdir())
    first = read_cifar("cifar10", data_dir, cache_dir=cache)
    assert len(list(cache.iterdir())) == 2 and all(path.suffix == ".npy" for path in cache.iterdir())
    assert sorted(data_dir.iterdir()) == before
    monkeypatch.setattr(parquet, "_decode", lambda *_: pytest.fail("decoded again"))
    again = read_cifar("cifar10", data_dir, cache_dir=cache)
    assert first.digest == again.digest and first.source_sha256 == again.source_sha256


def test_cached_images_are_those_of_the_files_bytes(tmp_path, small):
    tiny_cifar.write_parquet(tmp_path, "cifar10")
    first = read_cifar("cifar10", tmp_path, cache_dir=tmp_path / "cache")
    tiny = tiny_cifar.make("cifar10")
    tiny_cifar.write_parquet(tmp_path, "cifar10", tiny=tiny._replace(train_images=255 - tiny.train_images))
    second = read_cifar("cifar10", tmp_path, cache_dir=tmp_path / "cache")
    assert torch.equal(second.train_images, 255 - first.train_images)


def test_a_spoilt_cache_is_named(tmp_path, small):
    tiny_cifar.write_parquet(tmp_path, "cifar10")
    read_cifar("cifar10", tmp_path, cache_dir=tmp_path / "cache")
    for content in (b"not an array", b""):
        for path in (tmp_path / "cache").iterdir():
            path.write_bytes(content)
        assert "delete it" in refusal(read_cifar, "cifar10", tmp_path, cache_dir=tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        np.save(path, np.zeros((3, 3, 32, 32), np.uint8))
    assert "delete it" in refusal(read_cifar, "cifar10", tmp_path, cache_dir=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path, small, monkeypatch):
    tiny_cifar.write_parquet(tmp_path / "data", "cifar10")
    (tmp_path / "file").write_text("in the way")
    line = refusal(read_cifar, "cifar10", tmp_path / "data", cache_dir=tmp_path / "file")
    assert "cache_dir" in line and "cannot be written" in line

    def full(file, images):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.np, "save", full)
    assert "No space" in refusal(read_cifar, "cifar10", tmp_path / "data", cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


# What is refused --------------------------------------------------------------------------------


def test_nothing_there(tmp_path, small):
    line = refusal(read_cifar, "cifar100", tmp_path)
    assert all(text in line for text in ("CIFAR-100", "cifar-100-python.tar.gz", "parquet", str(tmp_path)))
    assert "must be a folder" in refusal(read_cifar, "cifar10", tmp_path / "absent")
    assert "nearest: cifar10" in refusal(read_cifar, "cifar-10", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_with_another_digest_is_not_opened(tmp_path, small, kind, monkeypatch):
    archive = tiny_cifar.write_archive(tmp_path, "cifar10", kind)
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("opened"))
    line = refusal(read_cifar, "cifar10", tmp_path)
    assert "MD5" in line and str(archive) in line and "download it again" in line


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_archive(tmp_path, small, share):
    archive = tiny_cifar.write_archive(tmp_path, "cifar10", "python")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    small("cifar10", archive)  # even with the right digest
    assert str(archive) in refusal(read_cifar, "cifar10", tmp_path)


def test_not_an_archive(tmp_path, small):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_text("<html>404</html>")
    small("cifar10", archive)
    assert "not a whole tar.gz" in refusal(read_cifar, "cifar10", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_cifar100_under_the_name_of_cifar10(tmp_path, small, kind):
    _, found = tiny_cifar.members("cifar100", kind)
    layout = next(layout for layout in DATA_SETS["cifar10"].layouts if layout.kind == kind)
    files = dict.fromkeys((*layout.train, *layout.test), found["test" if kind == "python" else "test.bin"])
    names = found["meta" if kind == "python" else "fine_label_names.txt"]
    tiny_cifar.pack(tmp_path / layout.archive, layout.folder, {**files, layout.names: names})
    small("cifar10", tmp_path / layout.archive)
    line = refusal(read_cifar, "cifar10", tmp_path)
    assert ("fine_labels" if kind == "python" else "3074") in line


def test_cifar100_parquet_under_the_name_of_cifar10(tmp_path, small):
    tiny_cifar.write_parquet(tmp_path / "cifar10", "cifar100")
    assert "must have img and label; label belongs to CIFAR-10, fine_label to CIFAR-100" in refusal(
        read_cifar, "cifar10", tmp_path
    )
    tiny_cifar.write_parquet(tmp_path / "cifar100", "cifar10")
    assert "must have img and fine_label" in refusal(read_cifar, "cifar100", tmp_path)


def test_wrong_numbers_of_images_and_labels(tmp_path, small):
    tiny = tiny_cifar.make("cifar10")
    eleventh = tiny.train_labels + (np.arange(50) == tiny.train_labels.argmax())
    fewer = tiny._replace(train_images=tiny.train_images[:45], train_labels=tiny.train_labels[:45])
    cases = {
        "45 images, CIFAR-10 has 50": fewer,
        "5 images of each of 10 classes": tiny._replace(train_labels=tiny.train_labels // 2),
        "labels from 0 to 10": tiny._replace(train_labels=eleventh),
    }
    for label in (-1, 2**62):
        spoilt = tiny._replace(train_labels=np.where(np.arange(50) == 7, label, tiny.train_labels))
        tiny_cifar.write_parquet(tmp_path / "spoilt", "cifar10", tiny=spoilt)
        assert str(label) in refusal(read_cifar, "cifar10", tmp_path / "spoilt")
    for number, (text, wrong) in enumerate(cases.items()):
        tiny_cifar.write_parquet(tmp_path / str(number), "cifar10", tiny=wrong)
        assert text in refusal(read_cifar, "cifar10", tmp_path / str(number))
        folder = tmp_path / f"binary{number}"
        folder.mkdir()
        tiny_cifar.write_folder(folder, "cifar10", "binary", wrong)
        assert text in refusal(read_cifar, "cifar10", folder)


def test_folders_that_lack_files_or_have_broken_ones(tmp_path, small):
    folder = tiny_cifar.write_folder(tmp_path, "cifar10", "binary")
    batch = folder / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    assert "3073" in refusal(read_cifar, "cifar10", tmp_path)
    batch.write_bytes(b"")
    assert "0 bytes" in refusal(read_cifar, "cifar10", tmp_path)
    batch.unlink()
    assert "has no data_batch_3.bin" in refusal(read_cifar, "cifar10", tmp_path)
    batch.write_bytes(whole)
    (folder / "batches.meta.txt").write_text("cat\ndog\n")
    assert "names 2 classes, CIFAR-10 has 10" in refusal(read_cifar, "cifar10", tmp_path)


def test_members_are_taken_by_their_exact_names_and_links_are_not_followed(tmp_path, small):
    layout, found = tiny_cifar.members("cifar10", "binary")
    secret = tmp_path / "secret"
    secret.write_bytes(found["test_batch.bin"])
    archive = tmp_path / layout.archive
    links = ((tarfile.SYMTYPE, str(secret)), (tarfile.LNKTYPE, f"{layout.folder}/data_batch_1.bin"))
    with tarfile.open(archive, "w:gz") as file:
        for member, data in found.items():
            item = tarfile.TarInfo(f"{layout.folder}/{member}")
            if member == "test_batch.bin":
                for kind, target in links:
                    item.type, item.linkname = kind, target
                    file.addfile(item)
                outside = tarfile.TarInfo(f"../{layout.folder}/{member}")
                outside.size = len(data)
                file.addfile(outside, io.BytesIO(data))
            else:
                item.size = len(data)
                file.addfile(item, io.BytesIO(data))
    small("cifar10", archive)
    before = sorted(tmp_path.parent.rglob("*"))
    assert "has no test_batch.bin" in refusal(read_cifar, "cifar10", tmp_path)
    assert sorted(tmp_path.parent.rglob("*")) == before  # nothing was extracted


def test_a_member_that_claims_too_much_is_not_read(tmp_path, small, monkeypatch):
    archive = tiny_cifar.write_archive(tmp_path, "cifar10", "binary")
    small("cifar10", archive)
    monkeypatch.setattr("kdsim.data.official.LARGEST_MEMBER", 1000)
    assert "at most 1000" in refusal(read_cifar, "cifar10", tmp_path)


# Pickles --------------------------------------------------------------------------------------


class Hostile:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, small, protocol):
    marker = tmp_path / "executed"
    for call in ((os.system, f"touch {marker}"), (eval, f"open({str(marker)!r}, 'w')"), (os.mkdir, str(marker))):
        folder = tiny_cifar.write_folder(tmp_path, "cifar10", "python")
        batch = {b"labels": [0], b"data": Hostile(*call)}
        (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol))
        assert "nothing was run" in refusal(read_cifar, "cifar10", tmp_path)
        assert not marker.exists()
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}",  # no end
        b"\x80\x02cnumpy\nload\n.",  # another name of numpy
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(tR.",  # an array, but no dictionary
        b"\x80\x02]K\x01a.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02cnumpy\ndtype\nU\x02O8\x85R.",
        b"\x80\x02cnumpy\nndarray\nK\x01\x85R.",  # an array made by calling the type
        b"\x80\x02}U\x04datacnumpy\ndtype\n}U\x04nameK\x01sbs.",  # state put on a class
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",  # a frame longer than all memory
        b"\x80\x02U\xffab.",
        b"(" * 5000,
    ],
)
def test_broken_and_twisted_pickles(data):
    assert refusal(unpickle, data, "here").startswith("here: not a pickle of CIFAR")


def test_arrays_of_anything_but_bytes_are_refused():
    for array in (np.zeros((2, 3072)), np.array([{}, None], object)):
        assert "must be 'u1'" in refusal(unpickle, pickle.dumps({"data": array}, 2), "here")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_python_3_are_read_too(protocol):
    data = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    for array in (data, np.asfortranarray(data)):
        found = unpickle(pickle.dumps({b"data": array, "labels": [1, 2]}, protocol), "here")
        assert (found["data"] == data).all() and found["labels"] == [1, 2]


def test_entries_of_the_wrong_kind(tmp_path, small):
    images = np.zeros((10, 3072), np.uint8)
    cases = [
        ({b"data": images}, "'labels'"),
        ({b"data": images, b"labels": [0] * 9}, "10 images and 9 labels"),
        ({b"data": images, b"labels": b"0123456789"}, "list of class numbers"),
        ({b"data": images, b"labels": [0] * 9 + [b"1"]}, "list of class numbers"),
        ({b"data": images, b"labels": [0] * 9 + [2**40]}, "list of class numbers"),
        ({b"data": images[:, 1:], b"labels": [0] * 10}, "(n, 3072)"),
        ({b"data": [1, 2], b"labels": [0] * 10}, "(n, 3072)"),
    ]
    folder = tiny_cifar.write_folder(tmp_path, "cifar10", "python")
    for batch, text in cases:
        (folder / "data_batch_2").write_bytes(pickle.dumps(batch, 2))
        line = refusal(read_cifar, "cifar10", tmp_path)
        assert text in line and "data_batch_2" in line


# Parquet ----------------------------------------------------------------------------------------


def test_parquet_files_that_are_not_whole(tmp_path, small):
    tiny_cifar.write_parquet(tmp_path, "cifar10", shards=2)
    path = tmp_path / "train-00001-of-00002.parquet"
    whole = path.read_bytes()
    for content in (whole[:-10], whole[: len(whole) // 2], b"", b"PAR1"):
        path.write_bytes(content)
        assert "not a whole parquet file" in refusal(read_cifar, "cifar10", tmp_path)
    spoilt = bytearray(whole)
    spoilt[2000:4000] = bytes(2000)
    path.write_bytes(spoilt)
    assert str(path) in refusal(read_cifar, "cifar10", tmp_path)
    path.unlink()
    assert "must hold train-00000-of-00002.parquet to" in refusal(read_cifar, "cifar10", tmp_path)
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    assert "must hold both train and test" in refusal(read_cifar, "cifar10", tmp_path)


def test_images_and_columns_of_the_wrong_kind(tmp_path, small):
    tiny = tiny_cifar.make("cifar10")
    small_image = tiny_cifar.encoded(tiny.train_images[0][:, :16, :16])
    gif = tiny_cifar.encoded(tiny.train_images[0], "GIF")
    grey = tiny_cifar.encoded(tiny.train_images[0])[:40]
    good = tiny_cifar.encoded(tiny.train_images[0])
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cases = [
        ({"img": pa.array([{"bytes": data, "path": None}], image), "label": [0]}, text)
        for data, text in (
            (small_image, "16 x 16 RGB, must be 32 x 32 RGB"), (gif, "image 0"), (grey, "image 0"), (None, "image 0"),
            (b"", "image 0"),
        )
    ]  # fmt: skip
    cases += [
        ({"img": pa.array([good]), "label": [0]}, "must be struct(bytes, path)"),
        ({"img": pa.array([{"bytes": good, "path": None}], image), "label": [0.5]}, "integers"),
        ({"img": pa.array([{"bytes": good, "path": None}], image), "label": pa.array([None], pa.int64())}, "empty"),
        ({"image": pa.array([good]), "label": [0]}, "has columns image, label"),
    ]
    tiny_cifar.write_parquet(tmp_path, "cifar10")
    for table, text in cases:
        pq.write_table(pa.table(table), tmp_path / "train-00000-of-00001.parquet")
        assert text in refusal(read_cifar, "cifar10", tmp_path)


# ImageData ----------------------------------------------------------------------------------------


def test_image_data_checks_what_it_holds():
    images, labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    data = ImageData(images, labels, images, labels, ("a", "b"), "a test", "")
    wrong = [
        {"train_images": images.float()}, {"test_images": images[:, :1]}, {"train_images": images[:0]},
        {"train_labels": labels[:3]}, {"test_labels": labels.int()}, {"train_labels": labels + 1},
        {"test_labels": labels - 1},
    ]  # fmt: skip
    for change in wrong:
        assert next(iter(change)).replace("_", " ") in refusal(replace, data, **change)
