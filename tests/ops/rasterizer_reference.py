"""A z-buffer by brute force: every triangle at every pixel, in float64, one triangle at a time."""

import numpy as np


def cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def to_window(positions, height, width):
    """Window positions as float32 arithmetic gives them: their rounding to 1/256 px is the rule."""
    xy = positions[:, :2]
    if positions.shape[1] == 4:
        w = positions[:, 3:]
        xy = xy * (np.float32(1) / np.where(w > 0, w, np.float32(1)))
    half = np.float32(0.5)
    return (xy * half + half) * np.array([width, height], np.float32)


def rasterize(positions, faces, height, width, cull="none"):
    """Face numbers, barycentrics, depth, and the depths of all faces (inf: does not cover)."""
    positions = np.asarray(positions, np.float32)
    window = to_window(positions, height, width)
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    face_id = np.full((height, width), -1)
    nearest = np.full((height, width), np.inf)
    barycentric = np.zeros((height, width, 3))
    depths = np.full((len(faces), height, width), np.inf)
    homogeneous = np.ones((len(positions), 4), np.float64)
    homogeneous[:, : positions.shape[1]] = positions
    back_facing = np.zeros(len(faces), bool)
    for number, face in enumerate(faces):
        corners = homogeneous[face]
        w = corners[:, 3]
        if not np.isfinite(corners).all() or (w <= 0).all():
            continue
        # (x w, y w, w) in pixels, seen from each pixel's centre: 2-D offsets times w.
        scaled = (corners[:, :2] * 0.5 + 0.5 * w[:, None]) * [width, height]
        offsets = scaled[:, None, None] - w[:, None, None, None] * centres
        parts = [cross(offsets[j], offsets[k]) for j, k in ((1, 2), (2, 0), (0, 1))]
        total = np.linalg.det(np.concatenate([scaled, w[:, None]], axis=1))
        if total == 0:
            continue
        extent = np.ptp(window[face], axis=0).max()
        # Larger than that, rounding has no subpixels left in float32: not rounded.
        if (w > 0).all() and extent <= 16384:
            fixed = np.round(window[face] * np.float32(256)).astype(np.float64) / 256
            around = fixed[:, None, None] - centres
            edges = np.stack([cross(around[j], around[k]) for j, k in ((1, 2), (2, 0), (0, 1))])
            if cross(fixed[1] - fixed[0], fixed[2] - fixed[0]) == 0:
                continue
            covered = (edges >= 0).all(axis=0) | (edges <= 0).all(axis=0)
        else:
            covered = (np.stack(parts) * np.sign(total) >= 0).all(axis=0)
        back_facing[number] = total > 0
        if cull == "back" and back_facing[number]:
            continue
        with np.errstate(all="ignore"):
            weights = np.stack(parts, axis=-1) / sum(parts)[..., None]
            depth = (weights @ corners[:, 2]) / (weights @ w)
        depths[number] = np.where(covered, depth, np.inf)
        closer = depths[number] < nearest
        nearest = np.where(closer, depth, nearest)
        face_id = np.where(closer, number, face_id)
        barycentric = np.where(closer[..., None], weights, barycentric)
    if cull == "back_after":
        hidden = (face_id >= 0) & back_facing[face_id]
        face_id = np.where(hidden, -1, face_id)
        barycentric = np.where(hidden[..., None], 0, barycentric)
    depth = np.where(face_id >= 0, nearest, 0)
    return face_id, barycentric, depth, depths


def antialias(image, face_id, depth, window, faces):
    """Silhouette antialiasing pair by pair, neighbours of edges by search."""
    height, width = face_id.shape
    result = image.copy()

    def is_silhouette(face, i):
        a, b = (window[faces[face, k]] for k in range(3) if k != i)
        ends = {faces[face, k] for k in range(3) if k != i}
        others = [f for f in range(len(faces)) if f != face and ends <= set(faces[f])]
        if len(others) != 1:
            return True
        (tip,) = set(faces[others[0]]) - ends
        own = cross(b - a, window[faces[face, i]] - a)
        return (own < 0) == (cross(b - a, window[tip] - a) < 0)

    for row, column in np.ndindex(height, width):
        for down in (0, 1):
            pixels = [(row, column), (row + down, column + 1 - down)]
            if pixels[1][0] >= height or pixels[1][1] >= width:
                continue
            ids = [face_id[pixel] for pixel in pixels]
            if ids[0] == ids[1]:
                continue
            if min(ids) < 0:
                chosen = int(ids[0] < 0)
            else:
                chosen = int(not depth[pixels[0]] < depth[pixels[1]])
            face, towards = ids[chosen], 1 - 2 * chosen
            centre = np.array(pixels[chosen][::-1]) + 0.5
            points = (window[faces[face]] - centre)[:, :: -1 if down else 1] * [towards, 1]
            best = None
            for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):
                a, b = points[j], points[k]
                if (a[1] < 0) == (b[1] < 0):
                    continue
                t = a[0] - a[1] * (b[0] - a[0]) / (b[1] - a[1])
                if best is None or t > best[0]:
                    best = (t, i, abs(b[1] - a[1]) >= abs(b[0] - a[0]))
            if best is None or not best[2] or not is_silhouette(face, best[1]):
                continue
            if not -1 / 16 < best[0] < 1 + 1 / 16:
                continue
            alpha = towards * (0.5 - np.clip(best[0], 0, 1))
            step = alpha * (image[pixels[1]] - image[pixels[0]])
            result[pixels[0 if alpha > 0 else 1]] += step
    return result
