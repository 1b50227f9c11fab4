"""Clips: which frames are taken, in which order, and what is refused; video files by a stand-in."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from family.inputs import clips
from family.inputs.clips import as_clip, check_clip, evenly, frame_files, list_clips, read_clip


def write(folder, count, size=(4, 6), first=0):
    """Frames whose grey is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.new("RGB", size, (i, i, i)).save(folder / f"frame{i}.png")
    return folder


def greys(frames):
    return [int(np.asarray(frame)[0, 0, 0]) for frame in frames]


def test_frames_are_the_middles_of_equal_parts():
    assert evenly(8, 8) == list(range(8))
    assert evenly(16, 4) == [2, 6, 10, 14]
    assert evenly(10, 3) == [1, 5, 8]
    assert evenly(5, 1) == [2]
    for length in range(4, 60):
        taken = evenly(length, 4)
        assert len({*taken}) == 4 and taken == sorted(taken) and taken[-1] < length
        assert abs(sum(taken) / 4 - (length - 1) / 2) <= 0.5  # neither end is favoured


def test_numbers_in_names_count_by_their_value(tmp_path):
    write(tmp_path, 12)
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".frame0.png").write_text("hidden")
    assert [path.name for path in frame_files(tmp_path)] == [f"frame{i}.png" for i in range(12)]
    assert greys(read_clip(tmp_path, 4)) == [1, 4, 7, 10]


def test_clips_below_a_folder(tmp_path):
    for name in ("b", "a/deep", ".hidden/c"):
        write(tmp_path / name, 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a/one.MP4").touch()
    (tmp_path / "a/two.txt").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_clips(tmp_path)]
    assert found == ["a/deep", "a/one.MP4", "b"]
    assert list_clips(tmp_path / "b") == [tmp_path / "b"]


def test_one_sentence_for_what_is_no_clip(tmp_path):
    write(tmp_path / "short", 3)
    write(tmp_path / "one", 1)
    write(tmp_path / "unequal", 3)
    write(tmp_path / "unequal", 3, (6, 6), first=3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").touch()
    cases = [
        ("short", "short has 3 frames, but 4 are to be taken: it is too short"),
        ("one", "one has 1 frame, but 4"),
        (
            "unequal",
            "unequal has frames of unequal sizes: frame0.png is 6 x 4 pixels, frame3.png 6 x 6",
        ),
        ("empty", "empty has no pictures"),
        ("text.txt", "text.txt is neither a folder of frames nor a video file"),
        ("gone", "gone does not exist"),
    ]
    for name, said in cases:
        for read in (check_clip, read_clip, as_clip):
            with pytest.raises(ValueError, match=said) as caught:
                read(tmp_path / name, 4)
            assert "\n" not in str(caught.value)
    assert check_clip(tmp_path / "unequal", 1) == 6  # which takes no two


def test_frames_in_memory(tmp_path):
    write(tmp_path, 8)
    pictures = [Image.open(path) for path in frame_files(tmp_path)]
    assert greys(as_clip(pictures, 4)) == greys(as_clip(frame_files(tmp_path), 4)) == [1, 3, 5, 7]
    with pytest.raises(ValueError, match="the clip has 8 frames, but 9"):
        as_clip(pictures, 9)
    with pytest.raises(ValueError, match="frame 0 is 6 x 4 pixels, frame 1 3 x 3"):
        as_clip([pictures[0], Image.new("RGB", (3, 3))], 2)


class DamagedError(Exception):
    """As av's base of all errors."""


class Container:
    """As much as is asked of one of av's."""

    def __init__(self, said, frames, videos=1):
        self.frames, self.closed = frames, False
        self.streams = SimpleNamespace(video=[SimpleNamespace(frames=said)] * videos)

    def decode(self, video):
        assert video == 0
        for grey in self.frames:
            if grey is None:
                raise DamagedError("invalid data")
            yield SimpleNamespace(to_image=lambda grey=grey: Image.new("RGB", (4, 4), (grey,) * 3))

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def stand_in(monkeypatch, *arguments):
    made = []

    def open_file(path):
        made.append(Container(*arguments))
        return made[-1]

    module = SimpleNamespace(open=open_file, error=SimpleNamespace(FFmpegError=DamagedError))
    monkeypatch.setitem(sys.modules, "av", module)
    return made


@pytest.mark.parametrize("said", [8, 0])  # some files do not say how long they are
def test_video_files(tmp_path, monkeypatch, said):
    made = stand_in(monkeypatch, said, range(8))
    (tmp_path / "a.mp4").touch()
    assert check_clip(tmp_path / "a.mp4", 4) == 8
    assert greys(read_clip(tmp_path / "a.mp4", 4)) == [1, 3, 5, 7]
    assert all(container.closed for container in made)
    with pytest.raises(ValueError, match=r"a.mp4 has 8 frames, but 9"):
        check_clip(tmp_path / "a.mp4", 9)


def test_video_files_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").touch()
    cases = [
        ((8, range(5)), "a.mp4 is cut short: it ends before frame 5"),
        ((8, [0, 1, None]), "a.mp4 is cut short or damaged: invalid data"),
        ((0, [0, None]), "a.mp4 is cut short or damaged: invalid data"),
        ((0, [], 0), "a.mp4 has no video in it"),
    ]
    for arguments, said in cases:
        stand_in(monkeypatch, *arguments)
        with pytest.raises(ValueError, match=said):
            read_clip(tmp_path / "a.mp4", 4)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install transformer-family\[video\]"):
        check_clip(tmp_path / "a.mp4", 4)


def test_a_real_video_file(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(10):
            frame = av.VideoFrame.from_image(Image.new("RGB", (32, 32), (20 * i,) * 3))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert check_clip(tmp_path / "a.mp4", 5) == 10
    read = greys(read_clip(tmp_path / "a.mp4", 5))
    assert read == pytest.approx([20, 60, 100, 140, 180], abs=8)
    (tmp_path / "b.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"b.mp4 cannot be read as a video"):
        clips.check_clip(tmp_path / "b.mp4", 5)
