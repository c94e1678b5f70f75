//! Perfetto packets, decoded by `prost` and checked as a reader would.
//!
//! The messages are declared from Perfetto's own definitions, not from our writer's constants, and
//! decoding is `prost`'s; that the numbers mean the same to Perfetto itself is checked with its own
//! `trace_processor`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Trace {
    #[prost(message, repeated, tag = "1")]
    pub(crate) packet: Vec<TracePacket>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TracePacket {
    #[prost(uint64, optional, tag = "8")]
    pub(crate) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    pub(crate) trusted_packet_sequence_id: Option<u32>,
    #[prost(message, optional, tag = "11")]
    pub(crate) track_event: Option<TrackEvent>,
    #[prost(message, optional, tag = "12")]
    pub(crate) interned_data: Option<InternedData>,
    #[prost(uint32, optional, tag = "13")]
    pub(crate) sequence_flags: Option<u32>,
    #[prost(message, optional, tag = "60")]
    pub(crate) track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrackDescriptor {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) name: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub(crate) process: Option<ProcessDescriptor>,
    #[prost(uint64, optional, tag = "5")]
    pub(crate) parent_uuid: Option<u64>,
    #[prost(message, optional, tag = "8")]
    pub(crate) counter: Option<CounterDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProcessDescriptor {
    #[prost(int32, optional, tag = "1")]
    pub(crate) pid: Option<i32>,
    #[prost(string, optional, tag = "6")]
    pub(crate) process_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CounterDescriptor {
    #[prost(int32, optional, tag = "3")]
    pub(crate) unit: Option<i32>,
    #[prost(string, optional, tag = "6")]
    pub(crate) unit_name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    pub(crate) debug_annotations: Vec<DebugAnnotation>,
    #[prost(int32, optional, tag = "9")]
    pub(crate) kind: Option<i32>,
    #[prost(uint64, optional, tag = "10")]
    pub(crate) name_iid: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    pub(crate) track_uuid: Option<u64>,
    #[prost(string, optional, tag = "23")]
    pub(crate) name: Option<String>,
    #[prost(int64, optional, tag = "30")]
    pub(crate) counter_value: Option<i64>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    pub(crate) flow_ids: Vec<u64>,
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    pub(crate) terminating_flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DebugAnnotation {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) name_iid: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) uint_value: Option<u64>,
    #[prost(int64, optional, tag = "4")]
    pub(crate) int_value: Option<i64>,
    #[prost(string, optional, tag = "6")]
    pub(crate) string_value: Option<String>,
    #[prost(uint64, optional, tag = "17")]
    pub(crate) string_value_iid: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct InternedData {
    #[prost(message, repeated, tag = "2")]
    pub(crate) event_names: Vec<Interned>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) debug_annotation_names: Vec<Interned>,
    #[prost(message, repeated, tag = "29")]
    pub(crate) debug_annotation_string_values: Vec<Interned>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Interned {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) iid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) text: Option<String>,
}

const SLICE_BEGIN: i32 = 1;
const SLICE_END: i32 = 2;
const INSTANT: i32 = 3;
const COUNTER: i32 = 4;

/// What a reader learns of a trace, packet by packet.
#[derive(Default)]
pub(crate) struct Reading {
    tracks: BTreeMap<u64, TrackDescriptor>,
    events: BTreeMap<u64, String>,
    annotations: BTreeMap<u64, String>,
    texts: BTreeMap<u64, String>,
    /// On each track the time of the last beginning or end, and the slices that are open.
    open: BTreeMap<u64, (u64, Vec<String>)>,
    flows: BTreeSet<u64>,
    pub(crate) slices: usize,
    pub(crate) lines: String,
}

impl Reading {
    /// Decodes `bytes` and holds every packet to what a reader relies on.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let trace = Trace::decode(bytes).expect("a protocol buffer");
        let mut reading = Self::default();
        for (index, packet) in trace.packet.iter().enumerate() {
            let length = packet.encoded_len();
            assert!(length <= aegis_trace::export::perfetto::PACKET_MAX, "{length} bytes");
            assert_eq!(packet.trusted_packet_sequence_id, Some(1));
            assert_eq!(packet.sequence_flags, Some(if index == 0 { 1 } else { 2 }));
            packet.interned_data.iter().for_each(|data| reading.learn(data));
            packet.track_descriptor.iter().for_each(|track| reading.declare(track));
            if let Some(event) = &packet.track_event {
                reading.event(packet.timestamp.expect("events have a time"), event);
            }
        }
        reading
    }

    /// Holds that nothing is left open.
    pub(crate) fn assert_closed(&self) {
        for (track, (_, open)) in &self.open {
            assert!(open.is_empty(), "open on {track}: {open:?}");
        }
    }

    fn learn(&mut self, data: &InternedData) {
        let tables = [
            (&data.event_names, &mut self.events),
            (&data.debug_annotation_names, &mut self.annotations),
            (&data.debug_annotation_string_values, &mut self.texts),
        ];
        for (entries, known) in tables {
            for Interned { iid, text } in entries {
                let iid = iid.filter(|iid| *iid > 0).expect("a number that is not zero");
                let before = known.insert(iid, text.clone().expect("a text"));
                assert_eq!(before, None, "interned twice");
            }
        }
    }

    fn declare(&mut self, track: &TrackDescriptor) {
        let uuid = track.uuid.expect("a number");
        match (&track.process, track.parent_uuid) {
            (Some(process), None) => {
                let name = process.process_name.as_deref().expect("a name");
                writeln!(self.lines, "process {uuid}: {name}").expect("a string");
            }
            (None, Some(parent)) => {
                assert!(self.tracks.contains_key(&parent), "the parent comes first");
                let name = track.name.as_deref().expect("a name");
                let unit = track
                    .counter
                    .as_ref()
                    .map(|counter| format!(" [unit {} {}]", counter.unit(), counter.unit_name()));
                let unit = unit.unwrap_or_default();
                writeln!(self.lines, "track {uuid} below {parent}: {name}{unit}")
                    .expect("a string");
            }
            other => panic!("neither a process nor below one: {other:?}"),
        }
        assert!(self.tracks.insert(uuid, track.clone()).is_none(), "declared twice");
    }

    fn event(&mut self, at: u64, event: &TrackEvent) {
        assert!(i64::try_from(at).is_ok(), "times are signed to a reader");
        let on = event.track_uuid.expect("a track");
        let is_counter = self.tracks.get(&on).expect("a declared track").counter.is_some();
        let name = event.name_iid.map(|iid| self.events[&iid].clone()).or(event.name.clone());
        let args: Vec<_> = event.debug_annotations.iter().map(|arg| self.annotation(arg)).collect();
        let args = args.join(", ");
        assert_eq!(is_counter, event.kind() == COUNTER);
        let shown = match event.kind() {
            SLICE_BEGIN => {
                let name = name.expect("slices have names");
                let (last, open) = self.open.entry(on).or_default();
                assert!(*last <= at, "time goes back on track {on}");
                *last = at;
                open.push(name.clone());
                self.slices += 1;
                format!("begin {name}")
            }
            SLICE_END => {
                let (last, open) = self.open.get_mut(&on).expect("something is open");
                assert!(*last <= at, "time goes back on track {on}");
                *last = at;
                format!("end {}", open.pop().expect("something is open"))
            }
            INSTANT => format!("instant {}", name.expect("instants have names")),
            COUNTER => format!("counter {}", event.counter_value.expect("a value")),
            other => panic!("no type {other}"),
        };
        let flow = self.flow(event);
        writeln!(self.lines, "{at} {on}: {shown}{flow} {{{args}}}").expect("a string");
    }

    fn flow(&mut self, event: &TrackEvent) -> String {
        match (&event.flow_ids[..], &event.terminating_flow_ids[..]) {
            ([], []) => String::new(),
            ([id], []) => {
                self.flows.insert(*id);
                format!(" ->{id}")
            }
            ([], [id]) => {
                assert!(self.flows.contains(id), "an arrow ends that did not begin");
                format!(" {id}->|")
            }
            other => panic!("more than one arrow: {other:?}"),
        }
    }

    fn annotation(&self, arg: &DebugAnnotation) -> String {
        let name = &self.annotations[&arg.name_iid.expect("a name")];
        let value = match arg {
            DebugAnnotation { uint_value: Some(value), .. } => value.to_string(),
            DebugAnnotation { int_value: Some(value), .. } => format!("{value:+}"),
            DebugAnnotation { string_value: Some(text), .. } => format!("{text:?}"),
            DebugAnnotation { string_value_iid: Some(iid), .. } => self.texts[iid].clone(),
            other => panic!("no value: {other:?}"),
        };
        format!("{name}: {value}")
    }
}
