"""Finding and aligning a real face."""

import numpy as np
import pytest
from PIL import Image
from visavis_client import MediaWarning, NoFaceError, Portrait, PortraitError, SeveralFacesError
from visavis_client.face import (
    EYES,
    MOUTH,
    Alignment,
    FaceFinder,
    FaceTrack,
    align_portrait,
    as_portrait,
    read_image,
)

SIZE = 128


@pytest.fixture(scope="module")
def finder():
    return FaceFinder()


def place(finder, image):
    """(eyes, mouth) of the only face, the side of the picture being 1."""
    (face,) = finder.find(image)
    return face.eyes / len(image), face.mouth / len(image)


def turned(image, degrees, zoom=1.0):
    picture = Image.fromarray(image)
    size = (round(picture.width * zoom), round(picture.height * zoom))
    return np.asarray(picture.resize(size).rotate(degrees, Image.Resampling.BICUBIC))


def unlike(a, b):
    return np.abs(a.astype(float) - b).mean()


def beside(left, right):
    return np.concatenate([left, right], axis=1)


def test_an_alignment_puts_two_points_into_their_places():
    alignment = Alignment.of(eyes=100 + 80j, mouth=90 + 130j)
    assert alignment.locate(100 + 80j) == pytest.approx(EYES)
    assert alignment.locate(90 + 130j) == pytest.approx(MOUTH)


def test_a_crop_shows_what_the_alignment_says():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:50] = 255
    crop = Alignment(20 + 10j, 40).crop(image, 40)
    expected = np.zeros((40, 40), np.uint8)
    expected[10:30, 10:30] = 255
    np.testing.assert_array_equal(crop[..., 0], expected)


@pytest.mark.parametrize("degrees", [0, 20, -30])
@pytest.mark.parametrize("zoom", [0.4, 1.0])
def test_a_portrait_has_eyes_and_mouth_in_their_places(finder, astronaut, degrees, zoom):
    portrait = align_portrait(turned(astronaut, degrees, zoom), SIZE)
    assert portrait.image.shape == (SIZE, SIZE, 3)
    eyes, mouth = place(finder, portrait.image)
    assert abs(eyes - EYES) < 0.03
    assert abs(mouth - MOUTH) < 0.03
    assert portrait.region_centers[0] == pytest.approx([0.5, 0.68])
    assert portrait.region_centers[1] == pytest.approx([0.5, 0.55], abs=0.06)


def test_a_face_that_is_small_in_its_picture_is_found(finder, astronaut):
    wide = np.full((1000, 1400, 3), 90, np.uint8)
    wide[600:800, 1000:1200] = np.asarray(Image.fromarray(astronaut).resize((200, 200)))
    (face,) = finder.find(wide)
    assert 1050 < face.eyes.real < 1120 and 610 < face.eyes.imag < 680


def test_no_face(astronaut):
    with pytest.raises(NoFaceError, match="512x300"):
        align_portrait(np.full((300, 512, 3), 128, np.uint8), SIZE)


def test_several_faces_are_listed_and_can_be_chosen(astronaut):
    both = beside(astronaut, astronaut[:, ::-1])
    with pytest.raises(SeveralFacesError, match="face_index") as caught:
        align_portrait(both, SIZE)
    left, right = caught.value.boxes
    assert left[0] < 512 < right[0]
    one, other = (align_portrait(both, SIZE, face_index=i).image for i in (0, 1))
    alone = align_portrait(astronaut, SIZE).image
    assert unlike(one, alone) < unlike(other, alone)
    assert unlike(other, alone[:, ::-1]) < unlike(one, alone[:, ::-1])
    with pytest.raises(PortraitError, match="0 to 1"):
        align_portrait(both, SIZE, face_index=2)


def test_a_poor_portrait_is_warned_of(astronaut):
    with pytest.warns(MediaWarning, match="blurred"):
        align_portrait(turned(astronaut, 0, 0.3), 256)
    with pytest.warns(MediaWarning, match="beyond the picture"):
        align_portrait(np.ascontiguousarray(astronaut[60:180, 175:275]), SIZE)


def test_a_portrait_may_be_a_file_a_picture_or_aligned_already(tmp_path, astronaut):
    path = tmp_path / "ada.png"
    Image.fromarray(astronaut).save(path)
    aligned = as_portrait(path, SIZE)
    np.testing.assert_array_equal(aligned.image, as_portrait(astronaut, SIZE).image)
    assert as_portrait(aligned, SIZE) is aligned
    with pytest.raises(PortraitError, match=str(SIZE)):
        as_portrait(aligned, 2 * SIZE)


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    path = tmp_path / "phone.jpg"
    Image.fromarray(image).save(path, exif=exif)
    upright = read_image(path)
    assert upright.shape == (60, 40, 3)
    assert upright[:, 25:].mean() > 250 and upright[:, :15].mean() < 5


def test_transparency_does_not_show_what_it_hides(tmp_path):
    hidden = np.dstack([np.full((8, 8, 3), 255, np.uint8), np.zeros((8, 8), np.uint8)])
    Image.fromarray(hidden).save(tmp_path / "cut.png")
    assert (read_image(tmp_path / "cut.png") == 128).all()


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture(tmp_path, content):
    path = tmp_path / "ada.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PortraitError, match=r"ada\.png"):
        read_image(path)


def test_a_picture_must_be_rgb(astronaut):
    with pytest.raises(PortraitError, match="uint8 RGB"):
        align_portrait(astronaut[..., 0], SIZE)
    with pytest.raises(PortraitError, match="aligned"):
        Portrait(astronaut[:100], np.zeros((2, 2), np.float32))


def moving(astronaut, shifts):
    """The astronaut in a wide picture, moved to the right by so many pixels, frame by frame."""
    for shift in shifts:
        frame = np.full((512, 1024, 3), 90, np.uint8)
        frame[:, shift : shift + 512] = astronaut
        yield frame


def test_a_track_keeps_its_transform_while_the_head_moves(finder, astronaut):
    shifts = [0] * 10 + [20] * 10
    track = FaceTrack(SIZE, finder=finder)
    crops = [track.crop(frame) for frame in moving(astronaut, shifts)]
    first, last = place(finder, crops[0]), place(finder, crops[-1])
    assert abs(first[0] - EYES) < 0.03
    assert (last[0] - first[0]).real > 0.05  # the motion stays visible
    np.testing.assert_array_equal(crops[0], crops[9])


def test_a_track_follows_a_head_that_has_left_its_place(finder, astronaut):
    shifts = [0] * 10 + [300] * 25
    track = FaceTrack(SIZE, finder=finder)
    crops = [track.crop(frame) for frame in moving(astronaut, shifts)]
    assert abs(place(finder, crops[-1])[0] - EYES) < 0.03


def test_a_track_is_fitted_to_the_first_faces_of_a_video(finder, astronaut):
    frames = [np.full((512, 1024, 3), 90, np.uint8)] * 12 + list(moving(astronaut, [100] * 40))
    track = FaceTrack(SIZE, finder=finder)
    track.fit(iter(frames))
    crops = [track.crop(frame) for frame in frames[:14]]
    assert abs(place(finder, crops[-1])[0] - EYES) < 0.03
    with pytest.raises(NoFaceError, match="12 frames"):
        FaceTrack(SIZE, finder=finder).fit(frames[:12])
