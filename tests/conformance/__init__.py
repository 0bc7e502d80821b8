"""gradkit compared with what TensorFlow 2.21 does, number by number."""
