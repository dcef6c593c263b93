"""Training with a teacher: frozen models, and what a student learns from their outputs."""

from .lessons import BoxLesson, Distillation, ImageLesson, Lesson, PixelLesson
from .teacher import Teacher

__all__ = ["BoxLesson", "Distillation", "ImageLesson", "Lesson", "PixelLesson", "Teacher"]
