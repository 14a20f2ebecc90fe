"""Small exports of annotation tools, made by hand from the public descriptions of their formats."""

from __future__ import annotations

from typing import Any


def region(kind: str, labels: list[str], **value: object) -> dict[str, Any]:
    """Return a result of Label Studio."""
    return {"type": kind, "from_name": "l", "to_name": "video", "value": {kind: labels, **value}}


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>7</id><name>door</name><size>60</size><mode>interpolation</mode><start_frame>0</start_frame>
    <stop_frame>59</stop_frame><frame_filter></frame_filter><subset>Train</subset>
    <labels><label><name>open</name></label></labels><source>a.mp4</source></task></meta>
  <track id="0" label="open" source="manual">
    <box frame="10" keyframe="1" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"><attribute name="who">Ann</attribute></box>
    <box frame="11" keyframe="0" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"/>
    <box frame="20" keyframe="1" outside="1" xtl="1" ytl="1" xbr="9" ybr="9"/>
    <box frame="30" keyframe="1" outside="0" xtl="1" ytl="1" xbr="9" ybr="9"/>
    <box frame="35" keyframe="1" outside="1" xtl="1" ytl="1" xbr="9" ybr="9"/>
  </track>
  <track id="1" label="close"><polygon frame="50" keyframe="1" outside="0" points="1,1;2,2;3,1"/></track>
  <image id="2" name="frame_000002"><tag label="dark"/></image>
  <image id="3" name="frame_000003"><tag label="dark"/></image>
  <image id="9" name="frame_000009"><tag label="dark"/><box label="cup" xtl="1" ytl="1" xbr="2" ybr="2"/></image>
</annotations>"""
ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="EAFv3.0.xsd">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/films/a.wav" MIME_TYPE="audio/x-wav" RELATIVE_MEDIA_URL="./a.wav"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/films/a.mp4" MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="../films/a.mp4"
      TIME_ORIGIN="100"/>
  </HEADER>
  <TIME_ORDER><TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1250"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/></TIME_ORDER>
  <TIER TIER_ID="hands" LINGUISTIC_TYPE_REF="t" ANNOTATOR="Ann">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>wave &amp; smile</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
      <ANNOTATION_VALUE>lost</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER TIER_ID="note" LINGUISTIC_TYPE_REF="n" PARENT_REF="hands">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>left</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="t" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>"""
VIA: dict[str, Any] = {
    "project": {"pid": "p", "rev": "1", "pname": "doors", "data_format_version": "3.1.1", "vid_list": ["1", "2"]},
    "config": {"file": {"loc_prefix": {"1": "", "2": "", "3": "films/", "4": ""}}},
    "attribute": {
        "1": {"aname": "Activity", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "open", "1": "close"}},
        "2": {"aname": "mood", "anchor_id": "FILE1_Z2_XY0", "type": 2, "options": {"a": "glad", "b": "sad"}},
        "3": {"aname": "place", "anchor_id": "FILE1_Z0_XY0", "type": 1, "options": {}},
    },
    "file": {
        "1": {"fid": "1", "fname": "a.mp4", "type": 4, "loc": 3, "src": "a.mp4"},
        "2": {"fid": "2", "fname": "b.mp4", "type": 4, "loc": 1, "src": ""},
    },
    "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
    "metadata": {
        "1_a": {"vid": "1", "flg": 0, "z": [0.5, 1.25], "xy": [], "av": {"1": "1", "2": "a,b"}},
        "1_b": {"vid": "1", "flg": 0, "z": [], "xy": [], "av": {"3": "kitchen"}},
        "1_c": {"vid": "1", "flg": 0, "z": [1.0], "xy": [2, 1, 1, 5, 5], "av": {"1": "0"}},
        "1_d": {"vid": "1", "flg": 0, "z": [1, 2], "xy": [], "av": {}},
    },
}
VTT = """WEBVTT - doors

NOTE made by hand
on two lines

STYLE
::cue { color: red }

one
00:00.500 --> 00:01.250 align:start position:0%
<v Ann>open &lt;slowly&gt; &amp; <b>wide</b>

01:00:02.000 --> 01:00:03.5
close
"""
SRT = "1\n00:00:00,500 --> 00:00:01,250\n<i>open</i>\nwide\n\n2\n00:01:02,000 --> 00:01:03,000\n{\\an8}close\n"
AVA = """a,0001,0.1,0.1,0.5,0.9,80,1
a,0002,0.1,0.1,0.5,0.9,80,1
a,0002,0.2,0.1,0.5,0.9,80,2
a,0004,0,0,1,1,80,1
b,0001,0,0,1,1,9,3
"""
AVA_MAP = 'item {\n  name: "watch (a person)"\n  id: 80\n}\nlabel { name: \'say "hi"\' label_id: 9 label_type: PERSON_MOVEMENT }\n'
TASKS = [
    {
        "id": 1,
        "data": {"video": "/data/local-files/?d=films/a.mp4", "fps": 10, "split": "val"},
        "annotations": [
            {
                "completed_by": 3,
                "result": [
                    region("timelinelabels", ["open", "wide"], ranges=[{"start": 1, "end": 5}]),
                    region("labels", ["slam"], start=0.5, end=1.5),
                    region("choices", ["kitchen"]),
                    region("videorectangle", ["cup"], sequence=[]),
                    {"type": "textarea", "value": {"text": ["hm"]}},
                ],
            },
            {
                "completed_by": {"id": 4, "email": "b@c.d"},
                "result": [region("timelinelabels", ["open"], ranges=[{"start": 2, "end": 2}])],
            },
            {"was_cancelled": True, "result": [region("choices", ["no"])]},
        ],
        "predictions": [{"model_version": "m", "score": 0.7, "result": [region("choices", ["maybe"])]}],
    },
    {"id": 2, "data": {"video": "/data/upload/1/0a1b2c3d-a.mp4"}, "completions": []},
]

SAMPLES: dict[str, Any] = {
    "samples": [
        {
            "filepath": "a.mp4",
            "tags": ["validation", "nice"],
            "metadata": {"_cls": "VideoMetadata", "frame_rate": 50},
            "events": {
                "_cls": "TemporalDetections",
                "detections": [{"_cls": "TemporalDetection", "label": "x", "support": [11, 20]}],
            },
            "guess": {"_cls": "TemporalDetection", "label": "y", "support": [1, 1], "confidence": 0.5},
            "scene": {"_cls": "Classification", "label": "kitchen"},
            "boxes": {"_cls": "Detections", "detections": []},
        },
        {
            "filepath": "gone.mp4",
            "metadata": {"frame_rate": 50},
            "events": {"_cls": "TemporalDetections", "detections": []},
        },
    ]
}
LABELS: dict[str, Any] = {
    "classes": ["x", "y"],
    "labels": {"a": [{"label": 1, "support": [1, 25]}, {"label": 0, "timestamps": [0.5, 1.5]}], "b": None},
}
