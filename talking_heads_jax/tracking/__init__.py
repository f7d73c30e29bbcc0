"""Photo or video → face box, landmarks, coefficients, camera and crop, steady over time."""
