"""From folders of videos to batches of frame pairs: records, builders, sampling, augmentation."""
