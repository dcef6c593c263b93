"""Files of a small dataset with pixel labels and boxes, and all that can be wrong with them."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from detectron2.structures import BoxMode
from PIL import Image

from topformer_d2.data.categories import Categories

CLASSES = Categories(("road", "sky"), ((1, 2, 3), (4, 5, 6)), (0, 1), 255)
HEIGHT, WIDTH = 40, 50


def write_pairs(folder, count, names=("images", "labels")):
    """Images of noise, and labels of 200 pixels of class 1, 50 ignored and class 0 elsewhere."""
    rng = np.random.default_rng(0)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[:4], label[4] = 1, 255
    for name in names:
        (folder / name).mkdir()
    for i in range(count):
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / names[0] / f"{i}.png")
        Image.fromarray(label).save(folder / names[1] / f"{i}.png")


def box(bbox, category=0, crowd=0):
    return {
        "bbox": bbox,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "iscrowd": crowd,
    }


def save_few_bits(path):
    """A PNG of 4 bits a pixel by hand: Pillow writes none, and reads its ids times 17."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 4, 0, 0, 0, 0)
    rows = (b"\0" + b"\x01" * -(-WIDTH // 2)) * HEIGHT
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def edit_label(record, change):
    label = np.array(Image.open(record["sem_seg_file_name"]))
    change(label).save(record["sem_seg_file_name"])


def with_value(label, value):
    label[3, 7] = value
    return Image.fromarray(label)


def save_as_jpeg(path):
    Image.open(path).save(path, format="JPEG")


def copy_label(record, scale):
    """Make the image of a record its label, in grey."""
    label = np.array(Image.open(record["sem_seg_file_name"]))
    Image.fromarray(np.where(label == 255, 255, label * scale).astype(np.uint8)).save(
        record["file_name"]
    )


def edit_all_labels(records, change):
    for record in records:
        edit_label(record, lambda label: Image.fromarray(change(label).astype(np.uint8)))


def edit_all_boxes(records, change):
    """Replace each box (x, y, width, height) by change(box, record)."""
    for record in records:
        for annotation in record["annotations"]:
            annotation["bbox"] = [float(v) for v in change(annotation["bbox"], record)]


def cut(path):
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def save_palette(path):
    image = Image.open(path).convert("P")
    image.save(path)


def save_deep(path, channels):
    cv2.imwrite(path, np.full((HEIGHT, WIDTH, channels), 3000, np.uint16))


def save_turned(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(path)
    image.load()
    image.save(path, exif=exif)


def set_boxes(record, *boxes):
    record["annotations"] += boxes


IMAGE, LABEL = "file_name", "sem_seg_file_name"
# Name: (kind, what spoils a record, the record's file that is named or "", words of the message).
