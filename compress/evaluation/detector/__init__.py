"""A detector at work: from a photograph to its detections."""
