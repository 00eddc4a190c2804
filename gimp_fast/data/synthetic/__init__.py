"""Generated patients in the formats of real ones, always called synthetic."""
