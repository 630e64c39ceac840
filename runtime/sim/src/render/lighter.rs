//! Meshes with fewer triangles, for pictures of few pixels: vertices that lie in one cell of a grid become one.

use std::collections::{HashMap, HashSet};

/// The faces of a mesh as MuJoCo has them: for each corner of a triangle the index of its vertex, of its normal and of
/// its place in the texture.
pub(crate) struct Faces<'a> {
    pub vertices: &'a mut [[i32; 3]],
    pub normals: &'a mut [[i32; 3]],
    pub texture: &'a mut [[i32; 3]],
}

/// Moves every corner to the vertex that stands for its cell, and the faces that remain to the front of the arrays;
/// says how many remain. Corners keep their normals, so the shading stays that of the whole mesh.
///
/// `cells`: number of cells on the longest side of the mesh. Of the vertices in a cell the one nearest to their mean
/// stands for all, so nothing is drawn where the mesh was not. A mesh of which nothing would remain is left whole.
pub(crate) fn thin_out(positions: &[[f32; 3]], faces: Faces, cells: u32) -> usize {
    let total = faces.vertices.len();
    let Some(standing) = standing_for(positions, cells) else { return total };
    let mut seen = HashSet::with_capacity(total);
    let moved = |corner: [i32; 3]| corner.map(|vertex| standing[vertex as usize]);
    let remains = |[a, b, c]: [i32; 3]| a != b && b != c && c != a;
    if !faces.vertices.iter().any(|&face| remains(moved(face))) {
        return total;
    }
    let mut kept = 0;
    for face in 0..total {
        let corners = moved(faces.vertices[face]);
        // Turned so that the smallest comes first: the same triangle seen from the same side.
        let first = (0..3).min_by_key(|&i| corners[i]).unwrap_or(0);
        let turned = [corners[first], corners[(first + 1) % 3], corners[(first + 2) % 3]];
        if remains(corners) && seen.insert(turned) {
            faces.vertices[kept] = corners;
            faces.normals[kept] = faces.normals[face];
            faces.texture[kept] = faces.texture[face];
            kept += 1;
        }
    }
    kept
}

/// Which vertex stands for each; `None` for a mesh without extent.
fn standing_for(positions: &[[f32; 3]], cells: u32) -> Option<Vec<i32>> {
    let mut low = [f32::INFINITY; 3];
    let mut high = [f32::NEG_INFINITY; 3];
    for position in positions {
        for axis in 0..3 {
            low[axis] = low[axis].min(position[axis]);
            high[axis] = high[axis].max(position[axis]);
        }
    }
    let longest = (0..3).map(|axis| high[axis] - low[axis]).fold(0.0, f32::max);
    let side = longest / cells.max(1) as f32;
    if !(side.is_finite() && side > 0.0) {
        return None;
    }
    let cell_of = |position: &[f32; 3]| [0, 1, 2].map(|axis| ((position[axis] - low[axis]) / side) as u32);
    let mut members: HashMap<[u32; 3], (Vec<usize>, [f32; 3])> = HashMap::new();
    for (vertex, position) in positions.iter().enumerate() {
        let (vertices, sum) = members.entry(cell_of(position)).or_default();
        vertices.push(vertex);
        (0..3).for_each(|axis| sum[axis] += position[axis]);
    }
    let mut standing = vec![0; positions.len()];
    for (vertices, sum) in members.values() {
        let mean = sum.map(|total| total / vertices.len() as f32);
        let distance = |vertex: usize| (0..3).map(|i| (positions[vertex][i] - mean[i]).powi(2)).sum::<f32>();
        // Of equally near ones the first, whatever the order of the map.
        let nearest = vertices.iter().copied().min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)))?;
        for &vertex in vertices {
            standing[vertex] = nearest as i32;
        }
    }
    Some(standing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flat sheet of n × n squares, 1 m wide.
    fn sheet(n: i32) -> (Vec<[f32; 3]>, Vec<[i32; 3]>) {
        let at = |i: i32| i as f32 / n as f32;
        let positions = (0..=n).flat_map(|y| (0..=n).map(move |x| [at(x), at(y), 0.0])).collect();
        let corner = |x: i32, y: i32| y * (n + 1) + x;
        let faces = (0..n)
            .flat_map(|y| (0..n).map(move |x| (x, y)))
            .flat_map(|(x, y)| {
                let [a, b, c, d] = [corner(x, y), corner(x + 1, y), corner(x + 1, y + 1), corner(x, y + 1)];
                [[a, b, c], [a, c, d]]
            })
            .collect();
        (positions, faces)
    }

    fn thinned(positions: &[[f32; 3]], faces: &[[i32; 3]], cells: u32) -> Vec<[i32; 3]> {
        let mut vertices = faces.to_vec();
        // Each face carries its number as normal and texture, so that a mix-up shows.
        let numbers: Vec<[i32; 3]> = (0..faces.len() as i32).map(|i| [i; 3]).collect();
        let (mut normals, mut texture) = (numbers.clone(), numbers);
        let arrays = Faces { vertices: &mut vertices, normals: &mut normals, texture: &mut texture };
        let kept = thin_out(positions, arrays, cells);
        assert_eq!(normals[..kept], texture[..kept]);
        vertices.truncate(kept);
        vertices
    }

    fn area(positions: &[[f32; 3]], faces: &[[i32; 3]]) -> f32 {
        let at = |i: i32| positions[i as usize];
        let twice = |[a, b, c]: [i32; 3]| {
            let (a, b, c) = (at(a), at(b), at(c));
            (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        };
        faces.iter().map(|&face| twice(face) / 2.0).sum()
    }

    #[test]
    fn a_fine_sheet_becomes_a_coarse_one_that_covers_the_same_and_faces_the_same_way() {
        let (positions, faces) = sheet(64);
        let coarse = thinned(&positions, &faces, 8);
        assert!(coarse.len() < faces.len() / 20, "{} of {}", coarse.len(), faces.len());
        // The rim moves by less than a cell on each side.
        let covered = area(&positions, &coarse);
        assert!((0.75..=1.0).contains(&covered), "{covered}");
    }

    #[test]
    fn a_mesh_that_is_coarse_already_stays_as_it_is() {
        let (positions, faces) = sheet(4);
        assert_eq!(thinned(&positions, &faces, 64), faces);
    }

    #[test]
    fn a_mesh_that_would_vanish_or_has_no_extent_is_left_whole() {
        let sliver = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.1, 0.0]];
        assert_eq!(thinned(&sliver, &[[0, 1, 2]], 1), [[0, 1, 2]]);
        assert_eq!(thinned(&[[1.0; 3]; 3], &[[0, 1, 2]], 8).len(), 1);
    }
}
