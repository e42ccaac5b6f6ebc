"""Running a detector: from a photograph to its detections."""
