"""The look of pages and figures: one style, figures inside HTML, the shared style sheet."""
