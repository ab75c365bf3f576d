//! Explains how it works, one page a concept: the pages of the book in `docs/`, with their equations.

/// A page of the book. Of two definitions of a link the first counts: these lead to modules, those at a page's end to other pages.
macro_rules! page {
    ($name:ident, $picture:literal) => {
        #[doc = "[lora]: crate::book::lora"]
        #[doc = "[laplace]: crate::book::laplace"]
        #[doc = "[curvature]: crate::book::curvature"]
        #[doc = "[evidence]: crate::book::evidence"]
        #[doc = "[linearised]: crate::book::linearised"]
        #[doc = "[core]: crate::book::core_space"]
        #[doc = "[loo]: crate::book::leave_one_out"]
        #[doc = "[next_token]: crate::book::next_token"]
        #[doc = "[generation]: crate::book::generation"]
        #[doc = concat!("[picture]: data:image/svg+xml;base64,", include_str!($picture))]
        #[doc = ""]
        #[doc = include_str!(concat!("../docs/how_it_works/", stringify!($name), ".md"))]
        pub mod $name {}
    };
}

page!(lora, "../docs/how_it_works/pictures/lora.base64");
page!(laplace, "../docs/how_it_works/pictures/laplace.base64");
page!(curvature, "../docs/how_it_works/pictures/structures.base64");
page!(evidence, "../docs/how_it_works/pictures/harm.base64");
page!(linearised, "../docs/how_it_works/pictures/sampled.base64");
page!(core_space, "../docs/how_it_works/pictures/core.base64");
page!(leave_one_out, "../docs/how_it_works/pictures/left_out_beta.base64");
page!(next_token, "../docs/how_it_works/pictures/exposure.base64");
page!(generation, "../docs/how_it_works/pictures/lockstep.base64");

/// The other pages with Rust in them, which is compiled.
#[cfg(doctest)]
mod compiled {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/start/classifier.md")]
    mod classifier {}
    #[doc = include_str!("../docs/start/text_model.md")]
    mod text_model {}
    #[doc = include_str!("../docs/start/from_rust.md")]
    mod from_rust {}
    #[doc = include_str!("../docs/guide/abstention.md")]
    mod abstention {}
    #[doc = include_str!("../docs/guide/rewards.md")]
    mod rewards {}
    #[doc = include_str!("../docs/guide/next_task.md")]
    mod next_task {}
}
