"""Programs that answer one question each, and the main job."""
