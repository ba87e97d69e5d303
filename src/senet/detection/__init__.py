"""Detectors on SE trunks: torchvision's Faster R-CNN, COCO's data and its metrics."""

from senet.detection.detector import Detector as Detector
from senet.detection.detector import DetectorConfig as DetectorConfig
from senet.detection.detector import faster_rcnn as faster_rcnn
from senet.detection.detector import list_detectors as list_detectors
from senet.detection.detector import load as load
from senet.detection.detector import save as save
from senet.detection.job import train as train
