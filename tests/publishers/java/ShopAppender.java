import org.apache.logging.log4j.core.Appender;
import org.apache.logging.log4j.core.Core;
import org.apache.logging.log4j.core.Layout;
import org.apache.logging.log4j.core.LogEvent;
import org.apache.logging.log4j.core.appender.AbstractAppender;
import org.apache.logging.log4j.core.config.Property;
import org.apache.logging.log4j.core.config.plugins.Plugin;
import org.apache.logging.log4j.core.config.plugins.PluginAttribute;
import org.apache.logging.log4j.core.config.plugins.PluginElement;
import org.apache.logging.log4j.core.config.plugins.PluginFactory;

/** log4j's side of the sender: what the layout makes is the body. */
@Plugin(name = "Shop", category = Core.CATEGORY_NAME, elementType = Appender.ELEMENT_TYPE)
public final class ShopAppender extends AbstractAppender {
    static Publish.Sender sender;

    private ShopAppender(String name, Layout<?> layout) {
        super(name, null, layout, false, Property.EMPTY_ARRAY);
    }

    /** What log4j calls for the element of its configuration. */
    @PluginFactory
    public static ShopAppender create(
            @PluginAttribute("name") String name, @PluginElement("Layout") Layout<?> layout) {
        return new ShopAppender(name, layout);
    }

    @Override
    public void append(LogEvent event) {
        sender.send(getLayout().toByteArray(event), "", null);
    }
}
