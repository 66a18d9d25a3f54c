"""Summary → text and other forms, one file each. Renderers format; they compute nothing."""
