//! Tables of what ejects, when, and how many.
