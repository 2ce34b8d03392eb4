//! The termination message of a container: Kubernetes shows it in the status of the pod, where it outlives the container and
//! its log (`terminationMessagePath`, by default `/dev/termination-log`).

use std::fs::OpenOptions;
use std::io::Write;

use crate::relay::Unsent;

/// The file that the kubelet mounts for the message. It exists only in a container of a pod.
const FILE: &str = "/dev/termination-log";

/// Writes what was not relayed. Nobody reads an error of this: the same is in the process log.
pub fn report(unsent: &[Unsent]) {
    let lines: Vec<String> = unsent.iter().map(Unsent::to_string).collect();
    if let Ok(mut file) = OpenOptions::new().append(true).open(FILE) {
        let _ = writeln!(file, "{}", lines.join("\n"));
    }
}
