//! The row of filters by example: a question as text, the log line of its decision as text.

use proptest::prelude::*;

use super::*;
use question::Question;

mod question;

const NOW: Timestamp = Timestamp(1_000_000);

type Pods = Arc<[Arc<PodAsk>]>;

/// The decision's log line, with a line for each group that was dropped.
#[track_caller]
fn check(question: &str, expect: &str) {
    let lines = |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    let decision = Question::read(question).decide();
    assert_eq!(lines(&decision.to_string().replace("; ", "\n")), lines(expect));
}

const GROUPS: &str = "
    group  m7-od     on-demand  cpu 8   mem 32
    group  m7-spot   spot       cpu 8   mem 32
    group  t4-od     on-demand  cpu 8   mem 32  gpu 1 nvidia-t4 16
    group  a10g-spot spot       cpu 8   mem 32  gpu 1 nvidia-a10g 24
    group  a10g-od   on-demand  cpu 8   mem 32  gpu 1 nvidia-a10g 24
    group  l40s-od   on-demand  cpu 8   mem 32  gpu 1 nvidia-l40s 48
    group  h100-spot spot       cpu 192 mem 2048 gpu 8 nvidia-h100-80gb 80
    pod a cpu 2 gpu 1
    pod b cpu 2 gpu 1
    pod c cpu 2
    pod d cpu 2";

#[track_caller]
fn check_row(question: &str, expect: &str) {
    check(&format!("{GROUPS}\n{question}"), expect);
}

#[test]
fn of_equal_machines_the_cheapest_is_taken_and_one_without_a_price_is_not() {
    let question = |rest: &str| {
        format!(
            "group east spot cpu 8 mem 32 gpu 1 nvidia-a10g 24 cents 45
             group west spot cpu 8 mem 32 gpu 1 nvidia-a10g 24 cents 39
             group nice spot cpu 8 mem 32 gpu 1 nvidia-a10g 24
             pod a cpu 2 gpu 1
             pod b cpu 2 gpu 1
             {rest}"
        )
    };
    check(
        &question("option east 2 a b\noption west 2 a b\noption nice 2 a b"),
        "west: 2 nodes for 2 pods
         not east (price: $0.4500 an hour for each pod, where the best costs $0.3900 an hour for each pod)
         not nice (price: no price known)",
    );
    check(
        &question("filters price name\noption east 1 a b\noption west 2 a b"),
        "east: 1 node for 2 pods
         not west (price: $0.3900 an hour for each pod, where the best costs $0.2250 an hour for each pod)",
    );
}

#[test]
fn gpu_nodes_are_not_bought_for_cpu_pods() {
    check_row(
        "option a10g-spot 1 c d
         option m7-od 1 c d",
        "m7-od: 1 node for 2 pods
         not a10g-spot (gpu_fit: would strand 1 GPU: none of its pods asks for one)",
    );
}

#[test]
fn a_cpu_pod_that_fits_nothing_else_gets_a_gpu_node() {
    check_row("option a10g-spot 1 c", "a10g-spot: 1 node for 1 pod");
}

#[test]
fn gpu_nodes_that_cpu_pods_inflate_wait_a_loop() {
    check_row(
        "option a10g-spot 3 a c d
         option m7-od 2 c d",
        "m7-od: 2 nodes for 2 pods
         not a10g-spot (gpu_fit: would strand 2 GPUs: 1 of 3 nodes do for the pods that ask for one)",
    );
    check_row(
        "option a10g-spot 1 a c
         option m7-od 1 c",
        "a10g-spot: 1 node for 2 pods
         not m7-od (priority: spot first, and this is on-demand)",
    );
}

#[test]
fn the_model_a_pod_asks_for_is_respected() {
    for label in [
        "k8s.amazonaws.com/accelerator=nvidia-l40s",
        "nvidia.com/gpu.product=NVIDIA-L40S",
        "nvidia.com/gpu.memory=46068",
    ] {
        check_row(
            &format!(
                "pod e cpu 1 gpu 1 want {label}
                 option a10g-spot 1 e
                 option l40s-od 1 e"
            ),
            &format!(
                "l40s-od: 1 node for 1 pod
                 not a10g-spot (gpu_fit: e asks for {}, {})",
                if label.contains("memory") { "GPUs of 46068 MiB" } else { label.split_once('=').unwrap().1 },
                if label.contains("memory") { "these have 24576" } else { "the group has nvidia-a10g" },
            ),
        );
    }
}

#[test]
fn memory_a_pod_must_have_more_of_is_respected() {
    check_row(
        "pod e cpu 1 gpu 1 over 30000
         option a10g-spot 1 e
         option l40s-od 1 e",
        "l40s-od: 1 node for 1 pod
         not a10g-spot (gpu_fit: e asks for GPUs of 30000 MiB, these have 24576)",
    );
}

#[test]
fn a_filter_never_drops_everything() {
    check_row(
        "pod e cpu 1 gpu 1 want nvidia.com/gpu.product=NVIDIA-B200
         option a10g-spot 1 e
         option l40s-od 1 e
         shunned a10g-spot stock-out",
        "l40s-od: 1 node for 1 pod
         not a10g-spot (offering: refused lately (stock-out))",
    );
    check_row(
        "option a10g-spot 1 a
         shunned a10g-spot stock-out",
        "a10g-spot: 1 node for 1 pod",
    );
}

#[test]
fn spot_comes_first_without_a_list() {
    check_row(
        "option a10g-od 2 a b
         option a10g-spot 2 a b",
        "a10g-spot: 2 nodes for 2 pods
         not a10g-od (priority: spot first, and this is on-demand)",
    );
}

#[test]
fn what_was_refused_lately_is_left_alone() {
    check_row(
        "option a10g-od 2 a b
         option a10g-spot 2 a b
         shunned a10g-spot stock-out: no spot capacity in zone-a",
        "a10g-od: 2 nodes for 2 pods
         not a10g-spot (offering: refused lately (stock-out: no spot capacity in zone-a))",
    );
}

#[test]
fn the_highest_number_wins() {
    check_row(
        "list 10 spot
         list 50 ^a10g-od$
         list -2 .*
         option a10g-od 2 a b
         option a10g-spot 2 a b
         option t4-od 2 a b",
        "a10g-od: 2 nodes for 2 pods
         not a10g-spot (priority: priority 10, where 50 is the highest)
         not t4-od (priority: no pattern matches, where 50 is the highest)",
    );
}

#[test]
fn a_list_that_matches_nothing_lets_all_pass() {
    check_row(
        "list 10 p5
         option a10g-od 2 a b
         option t4-od 2 a b",
        "t4-od: 2 nodes for 2 pods
         not a10g-od (waste: wastes more: 0 ‰ of GPU, 24576 MiB for each asked, 750 ‰ of CPU, 968 ‰ of memory, where the best buys 16384 MiB for each GPU)",
    );
}

#[test]
fn gpus_that_nobody_asked_for_are_the_worst_waste() {
    check_row(
        "option a10g-spot 2 a b
         option h100-spot 1 a b",
        "a10g-spot: 2 nodes for 2 pods
         not h100-spot (waste: wastes more: 750 ‰ of GPU, 327680 MiB for each asked, 979 ‰ of CPU, 999 ‰ of memory, where the best wastes 0 ‰ of its GPUs)",
    );
}

#[test]
fn a_capacity_of_zero_never_wins() {
    check_row(
        "group empty spot cpu 0 mem 0
         option empty 1 c
         option m7-spot 1 c",
        "m7-spot: 1 node for 1 pod
         not empty (waste: no capacity known)",
    );
}

#[test]
fn a_group_that_no_listing_has_shown_costs_nobody_the_answer() {
    check_row("option unknown 1 a", "unknown: 1 node for 1 pod");
    check_row(
        "option unknown 1 a
         option a10g-od 1 a",
        "a10g-od: 1 node for 1 pod
         not unknown (waste: no capacity known)",
    );
}

#[test]
fn the_last_tie_is_broken_by_name_or_left_to_the_next_expander() {
    let twins = "
        group twin-b spot cpu 8 mem 32
        group twin-a spot cpu 8 mem 32
        pod c cpu 2
        option twin-b 1 c
        option twin-a 1 c";
    check(twins, "twin-a: 1 node for 1 pod\nnot twin-b (name: equal to twin-a, and later by name)");
    check(&format!("{twins}\nfilters gpu_fit waste"), "twin-a or twin-b: 1 node for 1 pod");
}

#[test]
fn pods_with_a_machine_on_its_way_buy_nothing() {
    check_row(
        "bought a10g-spot 2 a b
         option a10g-od 2 a b
         option t4-od 2 a b",
        "nothing: each of the 2 pods has a machine on its way: a10g-spot (w-a10g-spot), for 899 s at most",
    );
}

#[test]
fn only_the_difference_is_bought() {
    check_row(
        "bought a10g-spot 1 a
         option a10g-spot 2 a b",
        "a10g-spot: 1 node for 2 pods (1 already on the way)",
    );
}

#[test]
fn a_candidate_that_helps_only_covered_pods_is_no_candidate() {
    // Left in, it would win as the group without GPUs, launch nothing, and the GPU pod would wait for ever.
    check_row(
        "bought m7-od 1 c
         option m7-od 1 c
         option a10g-spot 2 a c",
        "a10g-spot: 1 node for 2 pods (1 already on the way)
         not m7-od (bought: each of its pods has a machine on its way)",
    );
}

#[test]
fn a_question_without_candidates_has_no_answer() {
    check("", "nothing: no candidate");
}

/// A question of up to six groups and eight pods, each option with any of them.
fn question() -> impl Strategy<Value = String> {
    let group =
        (prop::bool::ANY, 0_u64..16, 0_u64..4, 1_u32..5, prop::bool::ANY, prop::collection::vec(0_usize..8, 0..8));
    let pods = prop::collection::vec((0_u64..6, 0_u64..3), 8);
    (prop::collection::vec(group, 1..6), pods, prop::collection::vec(0_usize..8, 0..5)).prop_map(
        |(groups, pods, covered)| {
            let mut text = String::new();
            for (place, (cpu, gpu)) in pods.iter().enumerate() {
                text += &format!("pod p{place} cpu {cpu} gpu {gpu}\n");
            }
            let names = |places: &[usize]| places.iter().map(|place| format!("p{place}")).collect::<Vec<_>>().join(" ");
            text += &format!("bought other 2 {}\n", names(&covered));
            for (place, (spot, cpu, gpu, nodes, shunned, pods)) in groups.iter().enumerate() {
                let market = if *spot { "spot" } else { "on-demand" };
                text += &format!("group g{place} {market} cpu {cpu} mem 32 gpu {gpu} nvidia-t4 16\n");
                if *shunned {
                    text += &format!("shunned g{place} stock-out\n");
                }
                text += &format!("option g{place} {nodes} {}\n", names(pods));
            }
            text
        },
    )
}

proptest! {
    /// One answer for every question, unless everything is on its way; and each dropped candidate says by whom.
    #[test]
    fn the_answer_is_one_group_or_a_veto(text in question()) {
        let question = Question::read(&text);
        let decision = question.decide();
        let covered = |pod: &Arc<PodAsk>| question.bought.covers(&pod.uid, NOW);
        let veto = question.options.iter().all(|(_, _, pods)| !pods.is_empty() && pods.iter().all(covered));
        prop_assert_eq!(decision.veto.is_some(), veto);
        prop_assert_eq!(decision.best.len(), usize::from(!veto));
        for verdict in &decision.candidates {
            prop_assert_eq!(verdict.dropped_by.is_none(), decision.best.contains(&verdict.group));
            let dropped = verdict.reasons.iter().find(|reason| !reason.kept).map(|reason| reason.filter);
            prop_assert!(veto || dropped == verdict.dropped_by);
        }
    }

    /// The order of the options and of their pods changes nothing.
    #[test]
    fn the_order_of_the_question_changes_nothing(text in question(), seed in 0_usize..1000) {
        let mut question = Question::read(&text);
        let first = question.decide();
        let turn = seed % question.options.len();
        question.options.rotate_left(turn);
        for (_, _, pods) in &mut question.options {
            *pods = pods.iter().rev().cloned().collect();
        }
        let second = question.decide();
        prop_assert_eq!(&first.best, &second.best);
        prop_assert_eq!(first.veto, second.veto);
    }
}
