"""The names of an exported graph's outputs."""

LOGITS, LABELS = "logits", "labels"
BOXES = ("boxes", "scores", "classes")
# Each with the name of a level behind it, such as "class_logits_p3".
CLASS_LOGITS, BOX_DELTAS = "class_logits_", "box_deltas_"
