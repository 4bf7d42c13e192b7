//! What people are told: the commands, the page, the warnings.

use super::stage::{Stage, gpu_group};

#[tokio::test]
async fn the_page_names_every_group_and_check_finds_the_configuration_good() {
    let stage = Stage::of(gpu_group()).await;
    let page = stage.page("/").await;
    assert!(page.contains("gpu"), "{page}");
    let checked = stage.run(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
