"""QGIS styles of the maps: QML files beside rasters, and styles inside a GeoPackage."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from marsls_keras.files import write_text

LANDSLIDE_COLOUR = (213, 94, 0)
"""Vermilion of Okabe and Ito's palette, which stays apart under colour blindness."""

_RAMP = ((0.0, (68, 1, 84)), (0.25, (59, 82, 139)), (0.5, (33, 145, 140)), (0.75, (94, 201, 98)), (1.0, (253, 231, 37)))
"""Viridis at five values."""

_HEAD = '<!DOCTYPE qgis PUBLIC "http://mrcc.com/qgis.dtd" "SYSTEM">\n'


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def ramp_style(low: float = 0.0, high: float = 1.0) -> str:
    """Return the QML of a raster of one band, such as probability, in the colours of viridis.

    Args:
        low: Value of the first colour.
        high: Value of the last colour.

    Example:
        >>> 'classificationMax="1"' in ramp_style()
        True
    """
    items = "\n".join(
        f'          <item value="{low + share * (high - low):g}" label="{low + share * (high - low):g}" '
        f'color="{_hex(colour)}" alpha="255"/>'
        for share, colour in _RAMP
    )
    return f"""{_HEAD}<qgis version="3.28.0" hasScaleBasedVisibilityFlag="0">
  <pipe>
    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" \
classificationMin="{low:g}" classificationMax="{high:g}">
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" \
minimumValue="{low:g}" maximumValue="{high:g}">
{items}
        </colorrampshader>
      </rastershader>
    </rasterrenderer>
  </pipe>
</qgis>
"""


def mask_style() -> str:
    """Return the QML of a mask: landslide in vermilion, background transparent.

    Example:
        >>> 'label="landslide"' in mask_style()
        True
    """
    return f"""{_HEAD}<qgis version="3.28.0" hasScaleBasedVisibilityFlag="0">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="0.6" alphaBand="-1">
      <colorPalette>
        <paletteEntry value="0" label="background" color="#000000" alpha="0"/>
        <paletteEntry value="1" label="landslide" color="{_hex(LANDSLIDE_COLOUR)}" alpha="255"/>
      </colorPalette>
    </rasterrenderer>
  </pipe>
</qgis>
"""


def polygon_style() -> str:
    """Return the QML of polygons: outline in vermilion, faint filling.

    Example:
        >>> 'symbolType="2"' not in polygon_style() and "SimpleFill" in polygon_style()
        True
    """
    red, green, blue = LANDSLIDE_COLOUR
    options = {
        "color": f"{red},{green},{blue},60",
        "outline_color": f"{red},{green},{blue},255",
        "outline_style": "solid",
        "outline_width": "0.5",
        "outline_width_unit": "MM",
        "style": "solid",
    }
    told = "\n".join(
        f'            <Option name="{key}" value="{value}" type="QString"/>' for key, value in options.items()
    )
    return f"""{_HEAD}<qgis version="3.28.0" styleCategories="Symbology" hasScaleBasedVisibilityFlag="0">
  <renderer-v2 type="singleSymbol" symbollevels="0" enableorderby="0" forceraster="0">
    <symbols>
      <symbol type="fill" name="0" alpha="1" clip_to_extent="1" force_rhr="0">
        <layer class="SimpleFill" enabled="1" locked="0" pass="0">
          <Option type="Map">
{told}
          </Option>
        </layer>
      </symbol>
    </symbols>
  </renderer-v2>
  <layerGeometryType>2</layerGeometryType>
</qgis>
"""


def write_style(raster: Path, style: str) -> Path:
    """Write a style beside a raster, under its name with the ending .qml, which QGIS finds by itself.

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> write_style(Path("mask.tif"), mask_style()).name
        'mask.qml'
    """
    path = raster.with_suffix(".qml")
    write_text(path, style)
    return path


def add_style(geopackage: Path, layer: str, style: str, name: str) -> None:
    """Store a style in a GeoPackage as the default of a layer, in the table `layer_styles` of QGIS.

    Args:
        geopackage: The file.
        layer: Name of the layer.
        style: QML.
        name: Name of the style.

    Example:
        >>> add_style(Path("landslides.gpkg"), "landslides", polygon_style(), "landslides")  # doctest: +SKIP
    """
    with closing(sqlite3.connect(geopackage)) as file, file:
        (column,) = file.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
        ).fetchone()
        # The columns, and their order, are those that QGIS creates when it saves a style.
        file.execute(
            "CREATE TABLE IF NOT EXISTS layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, "
            "f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256), "
            "f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, "
            "description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP)"
        )
        file.execute(
            "INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles')"
        )
        file.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) VALUES ('', '', ?, ?, ?, ?, '', 1, ?, '')",
            (layer, column, name, style, f"Style of {layer}"),
        )
