"""The page in a real browser, on the embedded model."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.app.conftest import open_page, shoot
from tests.helpers.fit_reference import image_of

pytestmark = pytest.mark.app


def text_of(page: Any, element: str) -> str:
    return str(page.locator(element).inner_text())


def wait_for_text(page: Any, element: str, text: str) -> str:
    page.wait_for_function(
        "([element, text]) => document.querySelector(element)?.innerText.includes(text)", arg=[element, text]
    )
    return text_of(page, element)


def points_of(page: Any) -> list[str]:
    return str(page.locator("#points textarea").input_value()).split()


def choose_example(page: Any, group: str, name: str) -> None:
    page.locator(group).get_by_label(name, exact=True).check()


def shown(page: Any, element: str) -> str:
    """The address of the picture that is shown, once there is one."""
    page.wait_for_selector(f"{element} img")
    return str(page.locator(f"{element} img").get_attribute("src"))


def wait_for_other(page: Any, element: str, before: str) -> None:
    page.wait_for_function(
        "([element, before]) => { const i = document.querySelector(element + ' img');"
        " return i && i.getAttribute('src') !== before; }",
        arg=[element, before],
    )


def find(page: Any) -> None:
    page.locator("#find").click()
    wait_for_text(page, "#state", "Found")


def error_of(page: Any) -> str:
    page.wait_for_selector(".toast-body.error")
    return str(page.locator(".toast-body.error").first.inner_text())


def upload(page: Any, button: str, path: Path) -> None:
    page.locator(f"input[type=file]:has(+ {button})").set_input_files(path)


def test_points_are_clicked_and_found(page: Any, address: str) -> None:
    hosts = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    shoot(page, "01-start")
    choose_example(page, "#examples", "cat")
    before = shown(page, "#source")
    wait_for_text(page, "#source-info", "128 x 128")
    page.wait_for_function("document.querySelector('#points textarea').value.split('\\n').length == 3")
    box = page.locator("#source img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 4, box["y"] + 3 * box["height"] / 4)
    wait_for_other(page, "#source", before)
    x, y = map(float, points_of(page)[-1].split(","))
    assert abs(x - 32) < 0.7
    assert abs(y - 96) < 0.7
    assert len(points_of(page)) == 4
    find(page)
    rows = page.locator("#answers tbody tr").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    for row in rows:
        u, v = map(float, re.findall(r"[\d.]+", row)[3:5])
        assert 0 <= u <= 128
        assert 0 <= v <= 128
    shoot(page, "02-found")
    heat = shown(page, "#heatmap")
    page.locator("#point-slider input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#heat-info", "Point 2, all layers together")
    wait_for_other(page, "#heatmap", heat)
    page.locator("#layer-slider input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#heat-info", "Point 2, layer up")
    shoot(page, "03-layer")
    assert hosts <= {address.removeprefix("http://")}


def test_points_are_typed_and_everything_is_reached_by_keyboard(page: Any) -> None:
    page.locator("#examples input").first.focus()
    page.keyboard.press("Space")
    shown(page, "#target")
    page.locator("#points textarea").fill("40,60\n70.5 80")
    page.locator("#find").focus()
    page.keyboard.press("Enter")
    wait_for_text(page, "#state", "Found 2 points")
    assert "70.5, 80" in text_of(page, "#answers")
    page.locator("#points textarea").fill("40,60\nfar away")
    assert "x,y in each line" in error_of(page)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "at least one point"),
        ("3,4\n300,5", "point 2 inside its image"),
        ("1,2\n" * 65, "at most 64 points"),
    ],
)
def test_points_that_cannot_be_found_are_refused(page: Any, text: str, told: str) -> None:
    choose_example(page, "#examples", "car")
    shown(page, "#source")
    page.wait_for_function("document.querySelector('#points textarea').value != ''")
    page.locator("#points textarea").fill(text)
    page.wait_for_timeout(500)
    page.locator("#find").click()
    page.wait_for_function(
        "told => [...document.querySelectorAll('.toast-body')].some(t => t.innerText.includes(told))",
        arg=told,
    )


def test_sixty_points_are_found(page: Any) -> None:
    choose_example(page, "#examples", "horse")
    shown(page, "#source")
    page.get_by_label("Method").click()
    page.get_by_role("option", name="packed", exact=True).click()
    page.wait_for_function("document.querySelector('#points textarea').value != ''")
    text = "\n".join(f"{8 + 12 * (n % 10)},{10 + 20 * (n // 10)}" for n in range(60))
    page.locator("#points textarea").fill(text)
    page.wait_for_timeout(1000)
    find(page)
    assert page.locator("#answers tbody tr").count() == 60
    shoot(page, "04-sixty")


def picture(path: Path, size: tuple[int, int] = (96, 64), **options: Any) -> Path:
    Image.fromarray(image_of(3, *size)).save(path, **options)
    return path


def test_an_ordinary_picture_a_turned_one_and_a_single_pixel(page: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upload(page, "#source-up", picture(tmp_path / "phone.jpg", (96, 64), exif=exif))
    assert "64 x 96 pixels, turned upright" in wait_for_text(page, "#source-info", "upright")
    upload(page, "#target-up", picture(tmp_path / "one.png", (1, 1)))
    wait_for_text(page, "#target-info", "1 x 1 pixels")
    page.locator("#points textarea").fill("60,90")
    find(page)
    (row,) = page.locator("#answers tbody tr").all_inner_texts()
    assert all(0 <= float(value) <= 1 for value in re.findall(r"[\d.]+", row)[3:5])
    shoot(page, "05-uploads")


def test_an_animation_and_transparency(page: Any, tmp_path: Path) -> None:
    frames = [Image.fromarray(image_of(seed, 40, 30)) for seed in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    upload(page, "#source-up", tmp_path / "moving.gif")
    wait_for_text(page, "#source-info", "the first of 3 frames")
    rgba = np.zeros((30, 40, 4), np.uint8)
    rgba[:, :20] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    upload(page, "#target-up", tmp_path / "clear.png")
    wait_for_text(page, "#target-info", "40 x 30")
    address = shown(page, "#target")
    with Image.open(io.BytesIO(page.request.get(address).body())) as png:
        assert png.convert("RGB").getpixel((600, 200)) == (255, 255, 255)


def test_what_is_no_picture_or_too_large_is_refused(page: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    upload(page, "#source-up", tmp_path / "text.png")
    assert "found none in text.png" in error_of(page)
    shoot(page, "06-no-picture")
    noise = np.random.default_rng(0).integers(0, 256, (3200, 3200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png", compress_level=0)
    assert (tmp_path / "large.png").stat().st_size > 30e6
    upload(page, "#target-up", tmp_path / "large.png")
    page.wait_for_function(
        "[...document.querySelectorAll('.toast-body')].some(t => /size|MB/i.test(t.innerText))"
    )
    shoot(page, "07-too-large")
    choose_example(page, "#examples", "cat")  # and the page goes on working
    shown(page, "#source")


def test_a_fit_is_cancelled(page: Any) -> None:
    choose_example(page, "#examples", "truck")
    shown(page, "#source")
    page.wait_for_function("document.querySelector('#points textarea').value != ''")
    text = "\n".join(f"{8 + 12 * (n % 10)},{10 + 18 * (n // 10)}" for n in range(64))
    page.locator("#points textarea").fill(text)
    page.wait_for_timeout(1000)
    page.locator("#find").click()
    wait_for_text(page, "#state", "fitting")
    shoot(page, "08-fitting")
    page.locator("#cancel").click()
    page.wait_for_function("!document.querySelector('#state').innerText.includes('fitting')")
    assert "Found" not in text_of(page, "#state")
    page.locator("#points textarea").fill("50,50")  # the model is free for the next
    page.wait_for_timeout(1000)
    find(page)


def test_two_visitors_do_not_see_each_other(browser: Any, address: str) -> None:
    contexts = [browser.new_context(viewport={"width": 1280, "height": 1300}) for _ in range(2)]
    pages = [open_page(context, address) for context in contexts]
    for page, name in zip(pages, ("cat", "horse"), strict=True):
        choose_example(page, "#examples", name)
        shown(page, "#source")
        page.wait_for_function("document.querySelector('#points textarea').value != ''")
    asked = ["30,40", "90,100\n20,30"]
    for page, text in zip(pages, asked, strict=True):
        page.locator("#points textarea").fill(text)
        page.wait_for_timeout(700)
    for page in pages:
        page.locator("#find").click()
    for page, text in zip(pages, asked, strict=True):
        wait_for_text(page, "#state", f"Found {len(text.split())} point")
        assert text.split()[0].replace(",", ", ") in text_of(page, "#answers")
    for context in contexts:
        context.close()


def test_segments_are_merged_again_named_and_downloaded(page: Any, tmp_path: Path) -> None:
    page.get_by_role("tab", name="Segments").click()
    choose_example(page, "#segment-examples", "cat")
    before = shown(page, "#segments")
    num = int(wait_for_text(page, "#segment-info", "segments").split()[0])
    slider = page.locator("#tau input[type=number]")
    slider.fill("0.05")
    slider.press("Enter")
    wait_for_other(page, "#segments", before)
    more = int(text_of(page, "#segment-info").split()[0])
    assert more > num
    with page.expect_download() as download:
        page.locator("#mask-download").click()
    download.value.save_as(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        assert sorted(set(np.asarray(mask).ravel().tolist())) == list(range(more))
    shoot(page, "09-segments")
    page.locator("#segment-words textarea, #segment-words input").fill("cat, grass, bricks")
    page.locator("#segment-name").click()
    page.wait_for_function("/cat|grass|bricks/.test(document.querySelector('#segment-info').innerText)")
    shoot(page, "10-named")
    before, named = shown(page, "#segments"), text_of(page, "#segment-info")
    box = page.locator("#tau input[type=range]").bounding_box()
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    wait_for_other(page, "#segments", before)
    page.wait_for_function("/cat|grass|bricks/.test(document.querySelector('#segment-info').innerText)")
    assert text_of(page, "#segment-info") != named


def test_words_of_a_caption(page: Any) -> None:
    page.get_by_role("tab", name="Words").click()
    choose_example(page, "#words-examples", "cat")
    shown(page, "#words-picture")
    page.locator("#caption textarea, #caption input").fill("a picture of a cat")
    page.locator("#words-run").click()
    shown(page, "#word-maps")
    shoot(page, "11-words")


def test_a_finished_run_is_looked_through(page: Any) -> None:
    page.get_by_role("tab", name="Runs").click()
    page.locator("#run input").click()
    page.get_by_role("option", name="mine/first", exact=True).click()
    first = shown(page, "#run-figure")
    assert "Pair 1 of 3" in wait_for_text(page, "#run-info", "points right")
    page.locator("#run-layer input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    wait_for_text(page, "#run-info", "layer layer.a alone")
    page.locator("#run-filter").get_by_label("pairs with a wrong point").check()
    wait_for_text(page, "#run-info", "Pair 1 of 1")
    wait_for_other(page, "#run-figure", first)
    shoot(page, "12-run")
    page.locator("#run-send").click()
    wait_for_text(page, "#source-info", "128 x 128")
    assert len(points_of(page)) >= 4
    shoot(page, "13-handed-over")
