"""The config keys of the images: their sizes, and how training changes them."""

from __future__ import annotations

from detectron2.config import CfgNode as CN


def add_input_config(cfg: CN) -> None:
    """Add to INPUT the keys of the recipes and of the augmentations, which are off."""
    # Training images are fitted within (MIN_SIZE_TRAIN[0], MAX_SIZE_TRAIN) times a ratio drawn from
    # here; empty = not resized, and those two keys have no effect.
    cfg.INPUT.SCALE_RANGE = []
    # A crop is redrawn, up to 10 times, while one class covers more than this share of it.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # Probability that a crop is drawn around something of a class, each class of the image being as
    # likely as any other: a pixel of that class or a whole box. SINGLE_CATEGORY_MAX_AREA is of the
    # other crops.
    cfg.INPUT.CROP.CLASS_BALANCED_PROB = 0.0
    # SSD's photometric distortion: brightness, contrast, saturation, hue.
    cfg.INPUT.COLOR_AUG_SSD = False
    # Rotation, scale, shear, shift and perspective by one warp of the resized image about its
    # middle, before the crop. What comes from outside has the colour PIXEL_MEAN and the ignored
    # label. A box becomes the box around its warped corners, which is wider than a round object in
    # it.
    cfg.INPUT.WARP = CN()
    # Probability; 0.0 = off.
    cfg.INPUT.WARP.PROB = 0.0
    # Largest angle in degrees, either way.
    cfg.INPUT.WARP.ROTATION = 10.0
    # Smallest and largest factor of the size.
    cfg.INPUT.WARP.SCALE = [1.0, 1.0]
    # Largest angle in degrees by which horizontal and vertical lines lean.
    cfg.INPUT.WARP.SHEAR = 0.0
    # Largest shift, as a share of the image's sides.
    cfg.INPUT.WARP.TRANSLATION = 0.0
    # Largest shift of each corner, as a share of the image's sides.
    cfg.INPUT.WARP.PERSPECTIVE = 0.0
    # Gaussian blur.
    cfg.INPUT.BLUR = CN()
    # Probability; 0.0 = off.
    cfg.INPUT.BLUR.PROB = 0.0
    # Smallest and largest standard deviation in pixels.
    cfg.INPUT.BLUR.SIGMA = [0.1, 2.0]
    # Gaussian noise of each channel.
    cfg.INPUT.NOISE = CN()
    # Probability; 0.0 = off.
    cfg.INPUT.NOISE.PROB = 0.0
    # Smallest and largest standard deviation, of values from 0 to 255.
    cfg.INPUT.NOISE.SIGMA = [0.0, 15.0]
    # JPEG compression.
    cfg.INPUT.JPEG = CN()
    # Probability; 0.0 = off.
    cfg.INPUT.JPEG.PROB = 0.0
    # Smallest and largest quality.
    cfg.INPUT.JPEG.QUALITY = [30, 95]
    # Cut-out (DeVries and Taylor, 2017): rectangles of the colour PIXEL_MEAN and the ignored label.
    # A box is cut to what is still seen of it.
    cfg.INPUT.CUTOUT = CN()
    # Probability; 0.0 = off.
    cfg.INPUT.CUTOUT.PROB = 0.0
    # The most rectangles; there is at least one.
    cfg.INPUT.CUTOUT.MAX_HOLES = 1
    # Smallest and largest side of a rectangle, as a share of the image's.
    cfg.INPUT.CUTOUT.SIZE = [0.1, 0.4]
    # Mosaic (YOLOv4, 2020): quarters of four samples around a random point, each resized, warped,
    # cropped and flipped on its own; colour and what follows are of the whole. All have labels for
    # the same tasks, and with DATASETS.TRAIN_WEIGHTS they are of the same dataset.
    cfg.INPUT.MOSAIC = CN()
    # Probability; 0.0 = off.
    cfg.INPUT.MOSAIC.PROB = 0.0
    # Copy-paste (Ghiasi et al., 2021): some objects of another sample are pasted over this one,
    # where they are in theirs. An object is what its outline covers, where its labels have polygons
    # or masks, and else its box; with both tasks only the pixels of that whose class has the box's
    # class name, if there is such a class. With pixel labels alone it is a connected region of one
    # class, of at most a quarter of the image. The other sample is chosen as for INPUT.MOSAIC.
    cfg.INPUT.COPY_PASTE = CN()
    # Probability; 0.0 = off.
    cfg.INPUT.COPY_PASTE.PROB = 0.0
    # WARP, CUTOUT, MOSAIC and COPY_PASTE drop a box of which less than this share can still be
    # seen. INPUT.CROP keeps every box that is not wholly outside.
    cfg.INPUT.MIN_VISIBLE = 0.25
    # Test images are stretched so that their height and width are multiples of this; 1 = off.
    cfg.INPUT.TEST_SIZE_DIVISOR = 1

    # Images of a classifier (TopFormerClassifier), by torchvision.transforms.v2. INPUT.RANDOM_FLIP
    # is for them too. A test image's short side is resized to INPUT.MIN_SIZE_TEST.
    cfg.INPUT.CLS = CN()
    # Side of the square that the network sees: of the random crop, which is resized to it, and of
    # the middle of a test image.
    cfg.INPUT.CLS.SIZE = 224
    # Smallest and largest share of the image's area that the random crop covers.
    cfg.INPUT.CLS.AREA = [0.08, 1.0]
    # RandAugment (Cubuk et al., 2020): operations on each image; 0 = off.
    cfg.INPUT.CLS.RAND_AUGMENT_OPS = 2
    # Their strength, from 0 to 30.
    cfg.INPUT.CLS.RAND_AUGMENT_MAGNITUDE = 9
    # Random erasing (Zhong et al., 2020): probability of a rectangle of the colour PIXEL_MEAN;
    # 0.0 = off.
    cfg.INPUT.CLS.ERASING_PROB = 0.1
    # Mixup (Zhang et al., 2018): parameter of the Beta distribution of the two images' shares;
    # 0.0 = off. It works on the batch of each process.
    cfg.INPUT.CLS.MIXUP_ALPHA = 0.0
    # CutMix (Yun et al., 2019), as MIXUP_ALPHA. Where both are on, a batch has one of them.
    cfg.INPUT.CLS.CUTMIX_ALPHA = 0.0
